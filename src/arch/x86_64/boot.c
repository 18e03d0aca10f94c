/* Boot data of x86_64 Linux in guest RAM. See boot.h. */
#include "arch/x86_64/boot.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arch/vcpu_state.h"
#include "util/bytes.h"
#include "util/error.h"

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

int sm_x86_boot_tables(uint8_t *ram, uint64_t ram_bytes, struct sm_boot_regs *regs, sm_error *err)
{
    static const uint64_t gdt[] = {
        0, 0, 0x00af9b000000ffffULL, /* 0x10: 64-bit code */
        0x00cf93000000ffffULL,       /* 0x18: data */
    };
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
    *regs = (struct sm_boot_regs){
        .stack = STACK_TOP_GPA,
        .page_table = TABLES_GPA,
        .gdt = GDT_GPA,
        .gdt_bytes = sizeof(gdt),
    };
    return 0;
}

/* As high as the kernel allows, so that it is out of the way of what the kernel does early. */
static int load_initramfs(const struct sm_boot_config *config, const struct sm_kernel_image *image,
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
    uint64_t done = 0;
    while (done < bytes) {
        ssize_t got =
            pread(config->initramfs_fd, config->ram + at + done, bytes - done, (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return sm_error_errno(err, errno, "cannot read the initramfs");
        if (got == 0)
            return sm_error_set(err, SM_ECORRUPT, "the initramfs became shorter while it was read");
        done += (uint64_t)got;
    }
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

int sm_x86_boot_load(const struct sm_boot_config *config, struct sm_boot_regs *regs, sm_error *err)
{
    size_t cmdline_bytes = strlen(config->cmdline);
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

    struct sm_kernel_image image;
    int rc = sm_x86_load_kernel(config->kernel_fd, config->ram, config->ram_bytes, &image, err);
    if (!rc)
        rc = sm_x86_boot_tables(config->ram, config->ram_bytes, regs, err);
    if (rc)
        return rc;

    struct boot_params params = {0};
    if (image.setup_header_bytes) {
        memcpy(&params.hdr, image.setup_header, image.setup_header_bytes);
    } else {
        params.hdr.boot_flag = 0xaa55;
        params.hdr.header = 0x53726448; /* "HdrS" */
        params.hdr.version = 0x20c;
        params.hdr.kernel_alignment = 0x1000000;
    }
    params.hdr.type_of_loader = 0xff;
    params.hdr.cmd_line_ptr = CMDLINE_GPA;
    params.hdr.cmdline_size = (uint32_t)cmdline_bytes;
    if (config->initramfs_fd >= 0) {
        rc = load_initramfs(config, &image, &params, err);
        if (rc)
            return rc;
    }
    fill_memory_map(&params, config->ram_bytes);
    memcpy(config->ram + BOOT_PARAMS_GPA, &params, sizeof(params));
    memcpy(config->ram + CMDLINE_GPA, config->cmdline, cmdline_bytes + 1);
    sm_x86_mptable(config->ram + SM_X86_MPTABLE_GPA, config->vcpus);
    regs->entry = image.entry;
    regs->arg = BOOT_PARAMS_GPA;
    return 0;
}
