/*
 * Boot data of x86_64 Linux in guest RAM. See boot.h.
 *
 * System calls at set-up: fstat.
 */
#include "arch/x86_64/boot.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "arch/x86_64/state.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"

#define GDT_GPA         0x500ULL
#define BOOT_PARAMS_GPA 0x7000ULL
#define STACK_TOP_GPA   0x8ff0ULL
#define TABLES_GPA      0x9000ULL
#define CMDLINE_GPA     0x20000ULL
#define LOW_RAM_END     0x9fc00ULL
#define LEGACY_END      0xa0000ULL
#define HIGH_RAM_START  0x100000ULL

#define E820_RAM      1
#define E820_RESERVED 2

#define PAGE_TABLE_ENTRY 0x3ULL /* present, writable */
#define LARGE_PAGE       0x83ULL

#define MIN_RAM (32ULL << 20)

static const uint64_t gdt[] = {
    0, 0, 0x00af9b000000ffffULL, /* 0x10: 64-bit code */
    0x00cf93000000ffffULL,       /* 0x18: data */
};

int sm_x86_boot_tables(uint8_t *ram, uint64_t ram_bytes, sm_error *err)
{
    enum { GIB = 4 };
    if (ram_bytes < 128 * 1024)
        return sm_error_set(err, SM_EINVAL, "no room for boot tables");
    for (size_t i = 0; i < SM_ARRAY_LEN(gdt); i++)
        sm_store_le64(ram + GDT_GPA + i * 8, gdt[i]);
    uint64_t pdpt = TABLES_GPA + 4096, directories = pdpt + 4096;
    sm_store_le64(ram + TABLES_GPA, pdpt | PAGE_TABLE_ENTRY);
    for (uint64_t g = 0; g < GIB; g++)
        sm_store_le64(ram + pdpt + g * 8, (directories + g * 4096) | PAGE_TABLE_ENTRY);
    for (uint64_t i = 0; i < GIB * 512; i++)
        sm_store_le64(ram + directories + i * 8, i << 21 | LARGE_PAGE);
    return 0;
}

/* ---- registers ----------------------------------------------------------------------------- */

#define CR0_PE_MP_ET_NE_WP_AM_PG 0x80050033ULL
#define CR4_PAE                  (1ULL << 5)
#define EFER_LME_LMA             ((1ULL << 8) | (1ULL << 10))
#define RFLAGS_ONE               (1ULL << 1)
#define APIC_BASE_ENABLED_BSP    0xfee00900ULL

/* Rights, as state.h has them */
#define CODE_64 0xa09bULL
#define DATA    0xc093ULL
#define TSS_64  0x8bULL /* the two that a CPU has after a reset */
#define LDT     0x82ULL

static int add_segment(struct sm_vcpu_state *state, uint32_t id, const uint64_t v[4], sm_error *err)
{
    int rc = 0;
    for (uint32_t i = 0; i < 4 && !rc; i++)
        rc = sm_reg_list_add(&state->gp, id + i, v[i], err);
    return rc;
}

static int add_segments(struct sm_vcpu_state *state, sm_error *err)
{
    static const struct {
        uint32_t id;
        uint64_t v[4]; /* in the order of SM_X86_SEG_* */
    } segments[] = {
        {SM_X86_GP_CS, {0, 0xffffffff, 0x10, CODE_64}},
        {SM_X86_GP_DS, {0, 0xffffffff, 0x18, DATA}},
        {SM_X86_GP_ES, {0, 0xffffffff, 0x18, DATA}},
        {SM_X86_GP_FS, {0, 0xffffffff, 0x18, DATA}},
        {SM_X86_GP_GS, {0, 0xffffffff, 0x18, DATA}},
        {SM_X86_GP_SS, {0, 0xffffffff, 0x18, DATA}},
        {SM_X86_GP_TR, {0, 0xffff, 0, TSS_64}},
        {SM_X86_GP_LDT, {0, 0xffff, 0, LDT}},
    };
    int rc = 0;
    for (size_t i = 0; i < SM_ARRAY_LEN(segments) && !rc; i++)
        rc = add_segment(state, segments[i].id, segments[i].v, err);
    return rc;
}

/* The gp list whole, so that a hypervisor has nothing to guess. */
int sm_x86_boot_state(uint64_t entry, uint64_t arg, struct sm_vcpu_state *state, sm_error *err)
{
    const struct sm_reg set[] = {
        {SM_X86_GP_RSI, arg},
        {SM_X86_GP_RSP, STACK_TOP_GPA},
        {SM_X86_GP_RIP, entry},
        {SM_X86_GP_RFLAGS, RFLAGS_ONE},
        {SM_X86_GP_GDT_BASE, GDT_GPA},
        {SM_X86_GP_GDT_LIMIT, sizeof(gdt) - 1},
        {SM_X86_GP_IDT_BASE, 0},
        {SM_X86_GP_IDT_LIMIT, 0xffff},
        {SM_X86_GP_CR0, CR0_PE_MP_ET_NE_WP_AM_PG},
        {SM_X86_GP_CR3, TABLES_GPA},
        {SM_X86_GP_CR4, CR4_PAE},
        {SM_X86_GP_EFER, EFER_LME_LMA},
        {SM_X86_GP_APIC_BASE, APIC_BASE_ENABLED_BSP},
    };
    static const struct {
        uint32_t first, last;
    } zero[] = {
        {SM_X86_GP_RAX, SM_X86_GP_RDX},
        {SM_X86_GP_RDI, SM_X86_GP_RDI},
        {SM_X86_GP_RBP, SM_X86_GP_R8 + 7},
        {SM_X86_GP_CR2, SM_X86_GP_CR2},
        {SM_X86_GP_CR8, SM_X86_GP_CR8},
        {SM_X86_GP_IRQ_BITMAP, SM_X86_GP_IRQ_BITMAP + 3},
    };
    int rc = add_segments(state, err);
    for (size_t i = 0; i < SM_ARRAY_LEN(set) && !rc; i++)
        rc = sm_reg_list_add(&state->gp, set[i].id, set[i].value, err);
    for (size_t i = 0; i < SM_ARRAY_LEN(zero); i++) {
        for (uint32_t id = zero[i].first; id <= zero[i].last && !rc; id++)
            rc = sm_reg_list_add(&state->gp, id, 0, err);
    }
    return rc;
}

/* ---- what is in RAM ------------------------------------------------------------------------ */

/* As high as the kernel allows, so that it is out of the way of what the kernel does early. */
static int load_initramfs(const struct sm_arch_boot *config, const struct sm_kernel_image *image,
    struct boot_params *params, sm_error *err)
{
    struct stat st;
    if (fstat(config->initramfs_fd, &st) < 0)
        return sm_error_errno(err, errno, "cannot stat the initramfs");
    if (!S_ISREG(st.st_mode) || st.st_size <= 0)
        return sm_error_set(err, SM_EINVAL, "the initramfs is empty or not a regular file");
    uint64_t bytes = (uint64_t)st.st_size;
    uint64_t top = SM_MIN(config->ram_bytes, SM_X86_RAM_LOW_END);
    top = SM_MIN(top, image->initramfs_max + 1);
    uint64_t lowest = sm_align_up(image->end, 4096);
    if (top < lowest || bytes > top - lowest)
        return sm_error_set(err, SM_EINVAL,
            "the initramfs (%llu KiB) does not fit beside the kernel into %llu MiB of guest memory",
            (unsigned long long)(bytes >> 10), (unsigned long long)(config->ram_bytes >> 20));
    uint64_t at = (top - bytes) & ~4095ULL;
    if (at < lowest)
        return sm_error_set(err, SM_EINVAL, "the initramfs does not fit beside the kernel");
    ssize_t got = sm_read_at(config->initramfs_fd, config->ram + at, bytes, 0);
    if (got < 0)
        return sm_error_errno(err, errno, "cannot read the initramfs");
    if ((uint64_t)got < bytes)
        return sm_error_set(err, SM_ECORRUPT, "the initramfs became shorter while it was read");
    params->hdr.ramdisk_image = (uint32_t)at;
    params->hdr.ramdisk_size = (uint32_t)bytes;
    return 0;
}

static void add_e820(struct boot_params *params, uint64_t start, uint64_t end, uint32_t type)
{
    params->e820_table[params->e820_entries++] =
        (struct boot_e820_entry){.addr = start, .size = end - start, .type = type};
}

static void fill_memory_map(struct boot_params *params, uint64_t ram_bytes)
{
    add_e820(params, 0, LOW_RAM_END, E820_RAM);
    add_e820(params, LOW_RAM_END, LEGACY_END, E820_RESERVED); /* MP table */
    add_e820(params, HIGH_RAM_START, SM_MIN(ram_bytes, SM_X86_RAM_LOW_END), E820_RAM);
    if (ram_bytes > SM_X86_RAM_LOW_END)
        add_e820(params, SM_X86_RAM_HIGH_START,
            SM_X86_RAM_HIGH_START + (ram_bytes - SM_X86_RAM_LOW_END), E820_RAM);
}

static int check(const struct sm_arch_boot *config, size_t cmdline_bytes, sm_error *err)
{
    if (cmdline_bytes > SM_X86_CMDLINE_MAX)
        return sm_error_set(err, SM_ELIMIT,
            "the kernel command line has %zu bytes, the kernel takes %d", cmdline_bytes,
            SM_X86_CMDLINE_MAX);
    if (config->ram_bytes < MIN_RAM)
        return sm_error_set(err, SM_EINVAL,
            "%llu MiB of guest memory are too little to boot: %llu at least",
            (unsigned long long)(config->ram_bytes >> 20), MIN_RAM >> 20);
    if (config->vcpus < 1 || config->vcpus > SM_MACHINE_MAX_VCPUS)
        return sm_error_set(
            err, SM_EINVAL, "%u vCPUs: 1 to %d are possible", config->vcpus, SM_MACHINE_MAX_VCPUS);
    return 0;
}

/* The setup header: what a bzImage brought, or one that says as much as a vmlinux needs. */
static void fill_setup_header(const struct sm_kernel_image *image, struct boot_params *params)
{
    if (image->setup_header_bytes) {
        memcpy(&params->hdr, image->setup_header, image->setup_header_bytes);
    } else {
        params->hdr.boot_flag = 0xaa55;
        params->hdr.header = 0x53726448; /* "HdrS" */
        params->hdr.version = 0x20c;
        params->hdr.kernel_alignment = 0x1000000;
    }
    params->hdr.type_of_loader = 0xff;
}

int sm_x86_boot_load(const struct sm_arch_boot *config, const char *cmdline,
    struct sm_vcpu_state *vcpu0, sm_error *err)
{
    size_t cmdline_bytes = strlen(cmdline);
    struct sm_kernel_image image;
    int rc = check(config, cmdline_bytes, err);
    if (!rc)
        rc = sm_x86_load_kernel(config->kernel_fd, config->ram, config->ram_bytes, &image, err);
    if (!rc)
        rc = sm_x86_boot_tables(config->ram, config->ram_bytes, err);
    if (rc)
        return rc;

    struct boot_params params = {0};
    fill_setup_header(&image, &params);
    params.hdr.cmd_line_ptr = CMDLINE_GPA;
    params.hdr.cmdline_size = (uint32_t)cmdline_bytes;
    if (config->initramfs_fd >= 0) {
        rc = load_initramfs(config, &image, &params, err);
        if (rc)
            return rc;
    }
    fill_memory_map(&params, config->ram_bytes);
    memcpy(config->ram + BOOT_PARAMS_GPA, &params, sizeof(params));
    memcpy(config->ram + CMDLINE_GPA, cmdline, cmdline_bytes + 1);
    sm_x86_mptable(config->ram + SM_X86_MPTABLE_GPA, config->vcpus);
    return sm_x86_boot_state(image.entry, BOOT_PARAMS_GPA, vcpu0, err);
}

int sm_arch_boot(const struct sm_arch_boot *boot, struct sm_vcpu_state *vcpu0, sm_error *err)
{
    auto_free char *cmdline = NULL;
    int rc = sm_x86_cmdline(boot, &cmdline, err);
    return rc ? rc : sm_x86_boot_load(boot, cmdline, vcpu0, err);
}
