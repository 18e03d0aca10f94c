/* The parts that there are: what each is made of. See parts.h; devices.c puts them into a
 * machine. */
#include "vmm/parts.h"

#include <string.h>

#include "devices/virtio_balloon.h"
#include "devices/virtio_net.h"
#include "devices/virtio_pmem.h"
#include "devices/virtio_rng.h"
#include "devices/vsock/vsock.h"

static int make_pmem(const struct sm_machine_part *part, const struct sm_part_env *env,
    struct sm_part_device *made, sm_error *err)
{
    (void)part;
    const struct sm_pmem_config config = {.start = env->gpa, .size = env->bytes, .flush_fd = -1};
    made->config[0] = config.start;
    made->config[1] = config.size;
    return sm_virtio_pmem_create(&env->virtio, &config, &made->dev, err);
}

struct sm_machine_part sm_part_rootfs(const char *path)
{
    return (struct sm_machine_part){.role = "rootfs", .make = make_pmem, .file = path};
}

static int make_vsock(const struct sm_machine_part *part, const struct sm_part_env *env,
    struct sm_part_device *made, sm_error *err)
{
    const struct sm_vsock_config config = {.guest_cid = part->cid};
    int rc = sm_vsock_create(&env->virtio, &config, &made->vsock, err);
    if (rc)
        return rc;
    made->dev = sm_vsock_dev(made->vsock);
    made->config[0] = part->cid;
    return 0;
}

struct sm_machine_part sm_part_vsock(uint32_t guest_cid)
{
    return (struct sm_machine_part){.role = "vsock", .make = make_vsock, .cid = guest_cid};
}

static int make_rng(const struct sm_machine_part *part, const struct sm_part_env *env,
    struct sm_part_device *made, sm_error *err)
{
    (void)part;
    return sm_virtio_rng_create(&env->virtio, &made->dev, err);
}

struct sm_machine_part sm_part_rng(void)
{
    return (struct sm_machine_part){.role = "rng", .make = make_rng};
}

static int make_balloon(const struct sm_machine_part *part, const struct sm_part_env *env,
    struct sm_part_device *made, sm_error *err)
{
    (void)part;
    return sm_virtio_balloon_create(&env->virtio, &made->dev, err);
}

struct sm_machine_part sm_part_balloon(void)
{
    return (struct sm_machine_part){.role = "balloon", .make = make_balloon};
}

static int make_net(const struct sm_machine_part *part, const struct sm_part_env *env,
    struct sm_part_device *made, sm_error *err)
{
    struct sm_net_backend *backend;
    int rc = part->net.plug(part->net.arg, env->virtio.loop, &backend, err);
    if (rc)
        return rc;
    rc = sm_virtio_net_create(&env->virtio, part->net.mac, backend, &made->dev, err);
    if (rc)
        backend->ops->destroy(backend);
    return rc;
}

struct sm_machine_part sm_part_net(sm_part_plug_fn *plug, void *arg, const uint8_t mac[6])
{
    struct sm_machine_part part = {
        .role = "net", .make = make_net, .net = {.plug = plug, .arg = arg}};
    memcpy(part.net.mac, mac, sizeof(part.net.mac));
    return part;
}
