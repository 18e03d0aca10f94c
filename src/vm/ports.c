/* How a VM is reached. See ports.h. */
#include "vm/ports.h"

#include <stdio.h>

#include "net/ports/found.h"
#include "net/ports/ports.h"
#include "util/clock.h"
#include "util/error.h"
#include "vm/client_loop.h"
#include "vm/notices.h"

#define FOUND_BURST    16 /* ports that are told of */
#define FOUND_A_SECOND 2

/* ---- what is asked for ----------------------------------------------------------------------- */

struct asked {
    size_t n;
    struct sm_port_spec specs[SM_PORTS_MAX];
};

static int too_many(sm_error *err)
{
    return sm_error_set(err, SM_ELIMIT,
        "more than %d ports are to be published; leave some out, or let them be found when "
        "something listens there",
        SM_PORTS_MAX);
}

/* 0.0.0.0 and :: are each address of their family. */
static bool stands_for_all(const struct sm_ip *ip)
{
    struct sm_ip any4 = sm_ip_from_v4(0), any6 = {{0}};
    return sm_ip_equal(ip, &any4) || sm_ip_equal(ip, &any6);
}

static bool share_an_address(const struct sm_ip *a, const struct sm_ip *b)
{
    return sm_ip_equal(a, b) ||
           (sm_ip_is_v4(a) == sm_ip_is_v4(b) && (stands_for_all(a) || stands_for_all(b)));
}

/* The one that has this port of the host already, or NULL. */
static const struct sm_port_spec *find_host_port(
    const struct asked *asked, const struct sm_port_spec *spec)
{
    for (size_t i = 0; i < asked->n && spec->host_port; i++) {
        const struct sm_port_spec *other = &asked->specs[i];
        if (other->host_port == spec->host_port && other->protocol == spec->protocol &&
            share_an_address(&other->ip, &spec->ip))
            return other;
    }
    return NULL;
}

static int refuse_both(
    const struct sm_port_spec *first, const struct sm_port_spec *second, sm_error *err)
{
    char one[SM_IP_TEXT], other[SM_IP_TEXT];
    if (sm_ip_equal(&first->ip, &second->ip))
        return sm_error_set(err, SM_EINVAL,
            "port %u of the host cannot lead to both port %u and port %u of the VM; choose another "
            "for one of them",
            first->host_port, first->guest_port, second->guest_port);
    return sm_error_set(err, SM_EINVAL,
        "port %u of the host cannot be published on both %s and %s: one of them stands for all "
        "addresses; leave one out, or choose another port for it",
        first->host_port, sm_ip_format(&first->ip, one), sm_ip_format(&second->ip, other));
}

/* Who says the same thing twice means it once. */
static int ask_for(struct asked *asked, const char *port, sm_error *err)
{
    struct sm_port_spec spec;
    int rc = sm_port_spec_parse(port, &spec, err);
    const struct sm_port_spec *other = rc ? NULL : find_host_port(asked, &spec);
    bool same = other && other->guest_port == spec.guest_port && sm_ip_equal(&other->ip, &spec.ip);
    if (other && !same)
        return refuse_both(other, &spec, err);
    if (!rc && !same && asked->n == SM_PORTS_MAX)
        return too_many(err);
    if (!rc && !same)
        asked->specs[asked->n++] = spec;
    return rc;
}

static bool is_asked_for(const struct asked *asked, const struct sm_port_spec *spec)
{
    for (size_t i = 0; i < asked->n; i++) {
        if (asked->specs[i].guest_port == spec->guest_port &&
            asked->specs[i].protocol == spec->protocol)
            return true;
    }
    return false;
}

/* Those of the image that are not published already. */
static int ask_for_exposed(struct asked *asked, const struct sm_oci_config *image, sm_error *err)
{
    auto_strv ports = {0};
    struct sm_port_spec spec;
    int rc = sm_oci_exposed_ports(image, &ports, err);
    if (rc == -SM_ELIMIT)
        return too_many(err);
    for (size_t i = 0; i < ports.count && !rc; i++) {
        rc = sm_port_spec_parse(ports.items[i], &spec, err);
        if (!rc && !is_asked_for(asked, &spec))
            rc = ask_for(asked, ports.items[i], err);
    }
    return rc ? sm_error_prefix(err, rc, "the image's exposed ports") : 0;
}

static int find_asked(struct asked *asked, const struct sm_oci_config *image,
    const struct sm_vm_network_config *config, sm_error *err)
{
    int rc = 0;
    asked->n = 0;
    for (const char *const *port = config->publish; port && *port && !rc; port++)
        rc = ask_for(asked, *port, err);
    if (!rc && config->publish_exposed)
        rc = ask_for_exposed(asked, image, err);
    return rc;
}

int sm_vm_check_ports(
    const struct sm_oci_config *image, const struct sm_vm_network_config *config, sm_error *err)
{
    struct asked asked;
    return find_asked(&asked, image, config, err);
}

int sm_vm_try_ports(const sm_vm *vm, const struct sm_vm_network_config *config, sm_error *err)
{
    struct asked asked;
    int rc = find_asked(&asked, &vm->image->config, config, err);
    return rc ? rc : sm_ports_try(asked.specs, asked.n, err);
}

/* ---- what lives on the loop ------------------------------------------------------------------ */

static void on_connection(void *arg, const struct sm_port_connection *connection)
{
    const sm_vm *vm = arg;
    sm_notice_connection(&vm->network.events, connection);
}

static void on_found(void *arg, const struct sm_port_spec *spec)
{
    sm_vm *vm = arg;
    uint64_t suppressed;
    if (sm_rate_take(&vm->ports.found_rate, (uint64_t)sm_now_ms(), &suppressed))
        sm_notice_found(&vm->network.events, spec, suppressed);
}

/* Those that there are, or new ones. */
static int have_ports(sm_vm *vm, struct sm_ports **ports, sm_error *err)
{
    const struct sm_vm_events *events = &vm->network.events;
    struct sm_loop *loop;
    int rc = sm_vm_loop(vm, &loop, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&vm->lock);
    if (!vm->ports.ports) {
        struct sm_guest_link link; /* once: the loop that reads it is told only now */
        sm_engine_link(vm->engine, loop, &link);
        rc = sm_ports_create(loop, &link,
            events->notice && events->connections ? on_connection : NULL, vm, &vm->ports.ports,
            err);
    }
    *ports = vm->ports.ports;
    pthread_mutex_unlock(&vm->lock);
    return rc;
}

static int have_listeners(sm_vm *vm, struct sm_listeners **listeners, sm_error *err)
{
    const struct sm_vm_events *events = &vm->network.events;
    const struct sm_card_addresses card = sm_vm_network_card(&vm->network);
    struct sm_ports *ports;
    int rc = have_ports(vm, &ports, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&vm->lock);
    if (!vm->ports.listeners) {
        vm->ports.found_rate = sm_rate_make(FOUND_A_SECOND, FOUND_BURST);
        rc = sm_listeners_create(ports, &card, events->notice && events->ports ? on_found : NULL,
            vm, &vm->ports.listeners, err);
    }
    *listeners = vm->ports.listeners;
    pthread_mutex_unlock(&vm->lock);
    return rc;
}

static int publish(sm_vm *vm, struct sm_port_spec *spec, sm_error *err)
{
    struct sm_ports *ports;
    int rc = have_ports(vm, &ports, err);
    return rc ? rc : sm_ports_publish(ports, spec, err);
}

static int open_door(sm_vm *vm, const char *path, sm_error *err)
{
    struct sm_ports *ports;
    int rc = have_ports(vm, &ports, err);
    return rc ? rc : sm_ports_front_door(ports, path, err);
}

int sm_vm_open_ports(sm_vm *vm, const struct sm_vm_network_config *config, sm_error *err)
{
    struct asked asked;
    int rc = find_asked(&asked, &vm->image->config, config, err);
    for (size_t i = 0; i < asked.n && !rc; i++)
        rc = publish(vm, &asked.specs[i], err);
    if (!rc && config->door)
        rc = open_door(vm, config->door, err);
    return rc;
}

int sm_vm_follow_ports(sm_vm *vm, const struct sm_vm_network_config *config, sm_error *err)
{
    const struct sm_vm_network *network = &vm->network;
    struct sm_listeners *listeners;
    int rc = 0;
    vm->ports.follows = !config->no_found_ports && network->mode != SM_NETWORK_NONE;
    if (vm->ports.follows && network->n_known) {
        rc = have_listeners(vm, &listeners, err);
        if (!rc)
            sm_listeners_set(listeners, network->known, network->n_known);
    }
    if (!rc && (vm->service_pid || network->n_known))
        sm_vm_watch_ports(vm);
    return rc;
}

void sm_vm_watch_ports(sm_vm *vm)
{
    const struct sm_vm_events *events = &vm->network.events;
    struct sm_listeners *listeners;
    sm_error err;
    char line[sizeof(err.message) + 64];
    if (!vm->ports.follows)
        return;
    if (have_listeners(vm, &listeners, &err) == 0) {
        sm_listeners_watch(listeners);
    } else if (events->notice) {
        snprintf(line, sizeof(line), "what listens in the VM is not found: %s", err.message);
        events->notice(events->notice_arg, line);
    }
}

int sm_vm_add_port(sm_vm *vm, const char *port, sm_error *err)
{
    struct sm_port_spec spec;
    int rc = sm_port_spec_parse(port, &spec, err);
    if (!rc && vm->network.mode == SM_NETWORK_NONE)
        return sm_error_set(
            err, SM_EINVAL, "port %u cannot be published: the VM has no network", spec.guest_port);
    return rc ? rc : publish(vm, &spec, err);
}

size_t sm_vm_list_ports(sm_vm *vm, struct sm_port_spec *specs, size_t max)
{
    pthread_mutex_lock(&vm->lock);
    struct sm_ports *ports = vm->ports.ports;
    pthread_mutex_unlock(&vm->lock);
    return ports ? sm_ports_list(ports, specs, max) : 0;
}

void sm_vm_close_ports(sm_vm *vm)
{
    sm_listeners_destroy(vm->ports.listeners);
    sm_ports_destroy(vm->ports.ports);
}
