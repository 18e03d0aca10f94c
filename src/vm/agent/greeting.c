/* What is said first to an agent. See greeting.h. */
#include "vm/agent/greeting.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/error.h"

int sm_agent_greet(struct sm_channel *channel, struct sm_wait *wait, sm_error *err)
{
    struct sm_wire_hello hello;
    int rc = sm_channel_expect(channel, SM_WIRE_HELLO, &hello, wait, err);
    if (rc)
        return rc;
    if (hello.version != SM_WIRE_VERSION)
        return sm_error_set(err, SM_EPROTOCOL,
            "the agent speaks version %u of the protocol and we version %u; install kernel, "
            "agent and library from one build",
            hello.version, SM_WIRE_VERSION);
    return 0;
}

static int get_random(void *buf, size_t size, sm_error *err)
{
    if (getrandom(buf, size, 0) != (ssize_t)size)
        return sm_error_errno(err, errno, "cannot get random bytes for the VM");
    return 0;
}

static void put_all(struct sm_wire_writer *w, const struct sm_agent_identity *identity,
    const struct sm_wire_restore *restore)
{
    if (identity->network)
        sm_wire_put_set_network(w, identity->network);
    sm_wire_put_restore(w, restore);
    if (identity->request)
        sm_wire_put(w, identity->request_type, identity->request);
}

static int send_all(struct sm_channel *channel, const struct sm_agent_identity *identity,
    const struct sm_wire_restore *restore, struct sm_wait *wait, sm_error *err)
{
    struct sm_wire_writer w = {0};
    put_all(&w, identity, restore);
    if (w.failed)
        return sm_error_set(err, SM_ELIMIT, "the command's arguments and environment are too long");
    auto_free uint8_t *frames = malloc(w.len);
    if (!frames)
        return sm_error_set(err, SM_ENOMEM, "no memory for a message to the agent");
    w = (struct sm_wire_writer){.buf = frames, .cap = w.len};
    put_all(&w, identity, restore);
    int rc = sm_channel_send(channel, frames, w.len, wait, err);
    explicit_bzero(frames, w.len); /* the seed */
    return rc;
}

int sm_agent_personalise(struct sm_channel *channel, const struct sm_agent_identity *identity,
    struct sm_wait *wait, sm_error *err)
{
    uint8_t seed[64];
    uint64_t id[2];
    char machine_id[33];
    int rc = get_random(seed, sizeof(seed), err);
    if (!rc)
        rc = get_random(id, sizeof(id), err);
    if (rc)
        return rc;
    snprintf(machine_id, sizeof(machine_id), "%016llx%016llx", (unsigned long long)id[0],
        (unsigned long long)id[1]);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const struct sm_wire_restore restore = {
        .realtime_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
        .seed = {.data = seed, .len = sizeof(seed)},
        .hostname = identity->hostname,
        .machine_id = machine_id,
        .attach_pid = identity->attach_pid,
    };
    rc = send_all(channel, identity, &restore, wait, err);
    if (!rc && identity->network)
        rc = sm_channel_expect(channel, SM_WIRE_OK, NULL, wait, err);
    if (!rc)
        rc = sm_channel_expect(channel, SM_WIRE_OK, NULL, wait, err);
    explicit_bzero(seed, sizeof(seed));
    if (!rc || rc == -SM_ELIMIT) /* which is the request's alone */
        return rc;
    return sm_error_prefix(err, rc, "cannot set the VM's network, clock, entropy and name");
}
