/*
 * Listeners that are found by themselves: what listens in the guest gets a port of the host on
 * 127.0.0.1, and loses it when it listens no more.
 *
 * The agent tells (WATCH, wire.h) over one connection, which is opened SM_LISTENERS_DELAY_MS after
 * there was a reason to: a command that is over by then has cost the guest nothing. A connection
 * that is lost is opened again as long as the guest runs. What the agent says is hostile: at most
 * SM_LISTENERS_MAX listeners count, and the next word is not listened to before
 * SM_LISTENERS_REST_MS have passed.
 *
 * A port of the guest that is published already gets no second one.
 */
#ifndef SM_NET_PORTS_FOUND_H
#define SM_NET_PORTS_FOUND_H

#include "net/ports/ports.h"
#include "wire/wire.h"

#define SM_LISTENERS_MAX      SM_PORTS_MAX
#define SM_LISTENERS_DELAY_MS 500
#define SM_LISTENERS_REST_MS  200
#define SM_LISTENERS_RETRY_MS 2000

/* UDP sockets on these ports of the guest are taken for clients: what Linux gives those that ask
 * for none. */
#define SM_LISTENERS_CLIENT_PORTS 32768

struct sm_listener {
    uint16_t port;
    uint8_t protocol; /* 6 or 17 */
    uint8_t family;   /* 4 or 6 */
};

/* The addresses of the guest's card; all zero: none. */
struct sm_card_addresses {
    struct sm_ip v4, v6;
};

/* Of all that listens, what is offered to others: bound to any address or to the card's, not to the
 * guest's loopback. Each port once, in order: TCP first, then the lower port. Returns how many. */
size_t sm_listeners_pick(const struct sm_wire_sockets *sockets,
    const struct sm_card_addresses *card, struct sm_listener found[SM_LISTENERS_MAX]);

struct sm_listeners;

/* Told on the loop's thread of each port that was found. */
typedef void sm_listeners_fn(void *arg, const struct sm_port_spec *spec);

/* On the ports' loop, and reaching the guest as they do. */
int sm_listeners_create(struct sm_ports *ports, const struct sm_card_addresses *card,
    sm_listeners_fn *found, void *arg, struct sm_listeners **listeners, sm_error *err);
/* Before the ports are destroyed. */
void sm_listeners_destroy(struct sm_listeners *listeners);

/* What listens for all that is known; the agent's next word replaces it. Any thread, as the
 * next. */
void sm_listeners_set(struct sm_listeners *listeners, const struct sm_listener *found, size_t n);

/* There is a reason to watch: a command was started. */
void sm_listeners_watch(struct sm_listeners *listeners);

#endif
