/*
 * What the network process and its client (vm/network_process.h) say to each other, beside the
 * frames: records of a SOCK_SEQPACKET pair, one message each, little-endian.
 *
 *     client   SETUP    once, before the process is started: what it is to be
 *              RESOLV   the contents of the host's resolv.conf, when they have changed
 *     process  DENIED   something that the policy refused, at a bounded rate
 *              TROUBLE  a sentence; also a record that is nothing but its text, as the line is in
 *                       which the sandbox says what ended the process
 *              ASKED    the guest has asked the name server: has resolv.conf changed?
 *              DONE     the machine's end was closed, and with it ends the process
 *
 * Both sides check all they get, and the client believes nothing: names are names, numbers are in
 * their ranges, sentences are short and become text.
 */
#ifndef SM_NET_PROCESS_MESSAGE_H
#define SM_NET_PROCESS_MESSAGE_H

#include "net/egress.h"
#include "net/resolv_conf.h"

/* The process' descriptors. */
#define SM_NETWORK_FD_CONTROL 3 /* these messages */
#define SM_NETWORK_FD_FRAMES  4 /* net/frame_socket.h */
#define SM_NETWORK_FD_CLIENT  5 /* pidfd: ends with the client */
#define SM_NETWORK_FD_TAP     6 /* if there is one */

#define SM_NETWORK_MAX_SENTENCE 512 /* bytes of TROUBLE, without NUL */
#define SM_NETWORK_MAX_REPORT   1024
#define SM_NETWORK_MAX_ORDER    (SM_POLICY_MAX_TEXT + SM_RESOLV_MAX_FILE + 64)

enum sm_network_order_kind { SM_NETWORK_SETUP = 1, SM_NETWORK_RESOLV };

/* To the process. Texts are not ended by NUL. */
struct sm_network_order {
    enum sm_network_order_kind kind;
    const char *resolv_conf;
    size_t resolv_conf_len;
    /* Of SETUP: */
    bool tap;             /* or the user-mode network */
    bool reports;         /* somebody wants to know what is denied */
    struct sm_ip link;    /* IPv6 network of the tap; prefix 0: none */
    unsigned link_prefix; /* at most 128 */
    const char *policy;   /* as sm_policy_format has it; of no length: none */
    size_t policy_len;
};

/* *record is malloc'ed. The texts are cut to what is read of them. */
int sm_network_order_encode(
    const struct sm_network_order *order, uint8_t **record, size_t *len, sm_error *err);
/* The texts point into the record. */
int sm_network_order_decode(
    const uint8_t *record, size_t len, struct sm_network_order *order, sm_error *err);

enum sm_network_report_kind {
    SM_NETWORK_DENIED = 16,
    SM_NETWORK_TROUBLE,
    SM_NETWORK_ASKED,
    SM_NETWORK_DONE,
};

/* From the process. */
struct sm_network_report {
    enum sm_network_report_kind kind;
    struct sm_denial denial;                /* its name points to text */
    char text[SM_NETWORK_MAX_SENTENCE + 1]; /* a name, or a sentence, cut */
};

/* Its length. */
size_t sm_network_report_encode(
    const struct sm_network_report *report, uint8_t record[SM_NETWORK_MAX_REPORT]);
/* False: that is nonsense. */
bool sm_network_report_decode(const uint8_t *record, size_t len, struct sm_network_report *report);

#endif
