/*
 * A snapshot in memory: everything of an SMSNAP v8 file but the RAM. The file is described in
 * docs/snapshot-format.md; codec.h turns this structure into bytes and back.
 *
 * Nothing here knows a hypervisor: registers are lists of (id, value), the interrupt controllers
 * are one opaque blob.
 */
#ifndef SM_SNAPSHOT_SNAPSHOT_H
#define SM_SNAPSHOT_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

#include "arch/vcpu_state.h"
#include "devices/virtio_state.h"
#include "util/cleanup.h"

#define SM_SNAPSHOT_VERSION 8

#define SM_SNAPSHOT_PAGE       4096u        /* what writers compare and copy */
#define SM_SNAPSHOT_CHUNK      (64u * 1024) /* zero ones are holes; RAM checksums are of chunks */
#define SM_SNAPSHOT_RAM_ALIGN  16384u       /* of the RAM in the file */
#define SM_SNAPSHOT_ROLE_BYTES 32           /* with a zero at the end */
#define SM_SNAPSHOT_ID_BYTES   32           /* build ids and digests, shorter ones zero-padded */

/* Bounds of what a file may hold. They protect the reader, and the writer keeps to them. */
#define SM_SNAPSHOT_MAX_META      (64u << 20) /* all before the RAM */
#define SM_SNAPSHOT_MAX_IRQCHIP   (4u << 20)
#define SM_SNAPSHOT_MAX_VCPUS     256u
#define SM_SNAPSHOT_MAX_DEVICES   256u
#define SM_SNAPSHOT_MAX_LISTENERS 65536u
#define SM_SNAPSHOT_MAX_REGIONS   16u
#define SM_SNAPSHOT_MAX_CPU_WORDS 4096u
#define SM_SNAPSHOT_MAX_NOTE      4096u
#define SM_SNAPSHOT_MAX_RAM       (1ull << 44) /* 16 TiB: page numbers fit into 32 bits */

/* A port that listened in the guest; bound again on a fresh host port by restore. */
struct sm_snapshot_listener {
    uint64_t cid;
    uint32_t peer_port;
    uint32_t vm_port;
    uint16_t family, socktype;
};

/* A device, in bus order. Without an architecture tag only v8's part of `state` is in the file. */
struct sm_snapshot_device {
    struct sm_virtio_state state;
    uint32_t virtio_id;                /* enum sm_virtio_id */
    char role[SM_SNAPSHOT_ROLE_BYTES]; /* what it is for in its machine; "": not said */
    uint32_t irq;
    uint64_t window;    /* guest-physical address of the registers */
    uint64_t features;  /* offered to the driver */
    uint64_t config[2]; /* pmem: start and size; blk: sectors; vsock: cid; else 0 */
};

/* RAM of the file at [offset, offset + size) is at gpa. */
struct sm_snapshot_region {
    uint64_t gpa, size, offset;
};

/* One word of the CPU's description. x86_64: CPUID leaf, sub = subleaf << 2 | register (EAX 0 ..
 * EDX 3); aarch64: encoding of an ID register, sub = 0. */
struct sm_snapshot_cpu_word {
    uint32_t id, sub;
    uint64_t value;
};

struct sm_snapshot {
    uint64_t captured_host_ns;     /* CLOCK_MONOTONIC */
    uint64_t captured_guest_clock; /* aarch64: CNTVCT; x86_64: kvmclock ns */
    uint64_t memory_bytes;         /* multiple of SM_SNAPSHOT_PAGE */
    uint64_t ram_gpa;
    uint64_t ram_offset; /* filled by load; writers choose it */
    uint32_t arch;       /* enum sm_arch_tag, or what a file says */

    uint8_t *irqchip;
    size_t irqchip_bytes;
    struct sm_vcpu_state *vcpus;
    uint32_t n_vcpus;
    struct sm_snapshot_device *devices;
    uint32_t n_devices;
    struct sm_snapshot_listener *listeners;
    uint32_t n_listeners;

    /* The rest is in our extension blocks: there only if arch is not SM_ARCH_UNMARKED. All zero
     * means "not said". */
    struct {
        uint8_t kernel[SM_SNAPSHOT_ID_BYTES];
        uint8_t agent[SM_SNAPSHOT_ID_BYTES];
        uint8_t vmm[SM_SNAPSHOT_ID_BYTES];
        uint8_t rootfs[SM_SNAPSHOT_ID_BYTES];
    } build;
    uint8_t cpu_digest[SM_SNAPSHOT_ID_BYTES];
    struct sm_snapshot_cpu_word *cpu_words;
    uint32_t n_cpu_words;
    struct sm_snapshot_region regions[SM_SNAPSHOT_MAX_REGIONS];
    uint32_t n_regions;
    char *note;         /* for people: image name, what was warmed up; NULL: none */
    uint32_t *ram_sums; /* CRC32C of each chunk of RAM; NULL: none */
    uint32_t n_ram_sums;
    bool checked; /* load: the file had a metadata checksum and it was right */
};

/* Frees it and all it holds; NULL is fine. */
void sm_snapshot_free(struct sm_snapshot *snapshot);
SM_DEFINE_CLEANUP(struct sm_snapshot *, sm_snapshot_free)
#define auto_snapshot SM_CLEANUP(sm_snapshot_free_cleanup) struct sm_snapshot *

/* "x86_64", "aarch64", "unmarked (aarch64)" or "unknown". */
const char *sm_snapshot_arch_name(uint32_t arch);

/* Is it printable ASCII with zeros behind it? */
bool sm_snapshot_role_is_text(const char role[SM_SNAPSHOT_ROLE_BYTES]);
/* Has a device before this one the same role? */
bool sm_snapshot_role_is_taken(const struct sm_snapshot *s, uint32_t device);

#endif
