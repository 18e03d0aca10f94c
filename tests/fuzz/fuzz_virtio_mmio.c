/*
 * A hostile driver at the registers: any order of register accesses, kicks, memory writes, saves
 * and loads, at each kind of device.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "devices/virtio_balloon.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_pmem.h"
#include "devices/virtio_rng.h"
#include "devices/vsock/vsock.h"

#define RAM_SIZE 0x10000u
#define DISK     8192u

static struct sm_virtio_dev *make(unsigned kind, const struct sm_virtio_env *env)
{
    struct sm_virtio_dev *dev = NULL;
    struct sm_vsock *vsock = NULL;
    struct sm_pmem_config pmem = {.start = 1u << 30, .size = 2u << 20, .flush_fd = -1};
    struct sm_blk_config blk = {.fd = -1, .size = DISK, .id = "disk"};
    int rc;
    switch (kind) {
    case 0:
        rc = sm_virtio_rng_create(env, &dev, NULL);
        break;
    case 1:
        blk.fd = memfd_create("disk", MFD_CLOEXEC);
        rc = blk.fd < 0 || ftruncate(blk.fd, DISK) || sm_virtio_blk_create(env, &blk, &dev, NULL);
        break;
    case 2:
        rc = sm_virtio_balloon_create(env, &dev, NULL);
        break;
    case 3:
        rc = sm_virtio_pmem_create(env, &pmem, &dev, NULL);
        break;
    default:
        rc = sm_vsock_create(env, NULL, &vsock, NULL);
        dev = rc ? NULL : sm_vsock_dev(vsock);
        break;
    }
    if (rc)
        abort();
    return dev;
}

/* Input: device, then steps: a kind and its operands. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static _Alignas(4096) uint8_t ram[RAM_SIZE];
    const struct sm_guest_memory gm = {
        .n = 1, .regions = {{.gpa = 0, .size = RAM_SIZE, .host = ram}}};
    struct fuzz_input in = {data, size};
    struct sm_virtio_env env = {.memory = &gm};
    struct sm_virtio_state state = {0};
    if (sm_bell_make(&env.irq, NULL) || sm_loop_create(&env.loop, NULL))
        abort();
    memset(ram, 0, sizeof(ram));
    struct sm_virtio_dev *dev = make((unsigned)fuzz_take(&in, 1) % 5, &env);
    for (unsigned steps = 0; in.left > 0 && steps < 500; steps++) {
        uint8_t bytes[8] = {0};
        unsigned kind = (unsigned)fuzz_take(&in, 1), len = 1u << (kind >> 6);
        uint64_t at = fuzz_take(&in, 2) % SM_VIRTIO_MMIO_SIZE;
        if (at + len > SM_VIRTIO_MMIO_SIZE)
            at = SM_VIRTIO_MMIO_SIZE - len;
        switch (kind % 8) {
        case 0:
        case 1: {
            uint64_t value = fuzz_take(&in, len);
            memcpy(bytes, &value, 8);
            sm_virtio_mmio_ops.write(dev, at, bytes, len);
            break;
        }
        case 2:
            sm_virtio_mmio_ops.read(dev, at, bytes, len);
            break;
        case 3:
            sm_loop_turn(env.loop);
            break;
        case 4:
        case 5:
            for (unsigned n = (unsigned)fuzz_take(&in, 1); n > 0 && in.left > 0; n--)
                ram[(at * 16 + n) % RAM_SIZE] = (uint8_t)fuzz_take(&in, 1);
            break;
        case 6:
            sm_virtio_save(dev, &state);
            break;
        default:
            state.status ^= (uint32_t)at;
            state.queues[at % SM_VIRTIO_MAX_QUEUES].desc ^= fuzz_take(&in, 2);
            if (sm_virtio_load(dev, &state, NULL) == 0)
                sm_virtio_wake(dev);
            break;
        }
        unsigned status = atomic_load(&dev->status);
        if ((status & SM_VIRTIO_STATUS_DRIVER_OK) && !(status & SM_VIRTIO_STATUS_FEATURES_OK))
            abort();
    }
    sm_loop_turn(env.loop);
    sm_virtio_destroy(dev);
    sm_loop_destroy(env.loop);
    sm_bell_close(&env.irq);
    return 0;
}
