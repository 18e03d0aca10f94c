/* Kernel files, good and hostile, and the tables that the kernel reads. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <asm/bootparam.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86_64/boot.h"
#include "arch/x86_64/state.h"
#include "util/bytes.h"

#define RAM       (64u << 20)
#define FILE_SIZE 8192u

static uint8_t *ram;

static int set_up(void **state)
{
    (void)state;
    ram =
        mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return ram == MAP_FAILED;
}

static int tear_down(void **state)
{
    (void)state;
    return munmap(ram, RAM);
}

static int file_of(const void *data, size_t n)
{
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, n), n);
    return fd;
}

struct elf {
    Elf64_Ehdr eh;
    Elf64_Phdr ph[2];
    uint8_t rest[FILE_SIZE - sizeof(Elf64_Ehdr) - 2 * sizeof(Elf64_Phdr)];
};

static struct elf good_elf(void)
{
    struct elf e = {
        .eh = {.e_type = ET_EXEC,
            .e_machine = EM_X86_64,
            .e_entry = 0x1000010,
            .e_phoff = sizeof(Elf64_Ehdr),
            .e_phentsize = sizeof(Elf64_Phdr),
            .e_phnum = 2},
        .ph = {{.p_type = PT_LOAD,
                   .p_offset = 4096,
                   .p_paddr = 0x1000000,
                   .p_filesz = 2048,
                   .p_memsz = 8192},
            {.p_type = PT_NOTE, .p_offset = UINT64_MAX, .p_filesz = UINT64_MAX}},
    };
    memcpy(e.eh.e_ident, ELFMAG, SELFMAG);
    e.eh.e_ident[EI_CLASS] = ELFCLASS64;
    e.eh.e_ident[EI_DATA] = ELFDATA2LSB;
    memset((uint8_t *)&e + 4096, 0x5a, 2048);
    return e;
}

static int load(const void *file, size_t n, struct sm_kernel_image *image, sm_error *err)
{
    int fd = file_of(file, n);
    int rc = sm_x86_load_kernel(fd, ram, RAM, image, err);
    close(fd);
    return rc;
}

static void elf_is_loaded(void **state)
{
    (void)state;
    struct elf e = good_elf();
    struct sm_kernel_image image;
    assert_int_equal(load(&e, sizeof(e), &image, NULL), 0);
    assert_int_equal(image.entry, 0x1000010);
    assert_int_equal(image.end, 0x1002000);
    assert_int_equal(ram[0x1000000], 0x5a);
    assert_int_equal(ram[0x10007ff], 0x5a);
    assert_int_equal(ram[0x1000800], 0);
}

static void refused(const void *file, size_t n, int code, const char *words)
{
    struct sm_kernel_image image;
    sm_error err = {0};
    int rc = load(file, n, &image, &err);
    if (rc != -code || !strstr(err.message, words))
        fail_msg("rc %d, \"%s\" (wanted %d, \"%s\")", rc, err.message, -code, words);
}

static void hostile_elf_is_refused(void **state)
{
    (void)state;
    struct elf e;
#define REFUSE(change, code, words)                                                                \
    do {                                                                                           \
        e = good_elf();                                                                            \
        change;                                                                                    \
        refused(&e, sizeof(e), code, words);                                                       \
    } while (0)
    REFUSE(e.eh.e_machine = EM_AARCH64, SM_EINVAL, "not an x86_64");
    REFUSE(e.eh.e_ident[EI_CLASS] = ELFCLASS32, SM_EINVAL, "not an x86_64");
    REFUSE(e.eh.e_type = ET_REL, SM_EINVAL, "not an x86_64");
    REFUSE(e.eh.e_phnum = 0, SM_ECORRUPT, "program headers");
    REFUSE(e.eh.e_phnum = 65535, SM_ECORRUPT, "program headers");
    REFUSE(e.eh.e_phentsize = 1, SM_ECORRUPT, "program headers");
    REFUSE(e.eh.e_phoff = UINT64_MAX - 8, SM_ECORRUPT, "outside");
    REFUSE(e.eh.e_phoff = FILE_SIZE - 8, SM_ECORRUPT, "truncated");
    REFUSE(e.eh.e_entry = 0x1000000 + 2048, SM_ECORRUPT, "entry");
    REFUSE(e.eh.e_entry = 0, SM_ECORRUPT, "entry");
    REFUSE(e.ph[0].p_type = PT_NULL, SM_ECORRUPT, "entry");
    REFUSE(e.ph[0].p_filesz = 8193, SM_ECORRUPT, "outside");
    REFUSE(e.ph[0].p_offset = UINT64_MAX, SM_ECORRUPT, "outside");
    REFUSE(e.ph[0].p_offset = FILE_SIZE - 100, SM_ECORRUPT, "outside");
    REFUSE(e.ph[0].p_paddr = 0x7000, SM_EINVAL, "does not fit");
    REFUSE(e.ph[0].p_paddr = RAM - 4096, SM_EINVAL, "does not fit");
    REFUSE(e.ph[0].p_paddr = UINT64_MAX - 4095, SM_EINVAL, "does not fit");
    REFUSE(e.ph[0].p_memsz = UINT64_MAX, SM_EINVAL, "does not fit");
#undef REFUSE
    refused("short", 5, SM_EINVAL, "too small");
    uint8_t zeros[2048] = {0};
    refused(zeros, sizeof(zeros), SM_EINVAL, "neither");
}

static void good_bzimage(uint8_t f[FILE_SIZE])
{
    memset(f, 0, FILE_SIZE);
    f[0x1f1] = 1; /* setup sectors */
    sm_store_le16(f + 0x1fe, 0xaa55);
    f[0x201] = 0x6a;
    memcpy(f + 0x202, "HdrS", 4);
    sm_store_le16(f + 0x206, 0x20f);
    sm_store_le32(f + 0x22c, 0x37ffffff);
    sm_store_le16(f + 0x236, 1);
    sm_store_le64(f + 0x258, 0x1000000);
    sm_store_le32(f + 0x260, 0x800000);
    memset(f + 1024, 0x77, FILE_SIZE - 1024);
}

static void bzimage_is_loaded(void **state)
{
    (void)state;
    uint8_t f[FILE_SIZE];
    struct sm_kernel_image image;
    good_bzimage(f);
    assert_int_equal(load(f, sizeof(f), &image, NULL), 0);
    assert_int_equal(image.entry, 0x1000200);
    assert_int_equal(image.end, 0x1800000);
    assert_int_equal(image.initramfs_max, 0x37ffffff);
    assert_int_equal(image.setup_header_bytes, 0x202 + 0x6a - 0x1f1);
    assert_int_equal(ram[0x1000000], 0x77);
    assert_int_equal(ram[0x1000000 + FILE_SIZE - 1024 - 1], 0x77);
}

static void hostile_bzimage_is_refused(void **state)
{
    (void)state;
    uint8_t f[FILE_SIZE];
#define REFUSE(change, code, words)                                                                \
    do {                                                                                           \
        good_bzimage(f);                                                                           \
        change;                                                                                    \
        refused(f, sizeof(f), code, words);                                                        \
    } while (0)
    REFUSE(sm_store_le16(f + 0x206, 0x200), SM_EUNSUPPORTED, "64-bit");
    REFUSE(sm_store_le16(f + 0x236, 0), SM_EUNSUPPORTED, "64-bit");
    REFUSE(f[0x1f1] = 255, SM_ECORRUPT, "truncated");
    REFUSE(f[0x1f1] = 15, SM_ECORRUPT, "truncated");
    REFUSE(sm_store_le64(f + 0x258, 0x1000), SM_EINVAL, "do not fit");
    REFUSE(sm_store_le64(f + 0x258, UINT64_MAX), SM_EINVAL, "do not fit");
    REFUSE(sm_store_le32(f + 0x260, UINT32_MAX), SM_EINVAL, "do not fit");
    REFUSE(f[0x201] = 0, SM_ECORRUPT, "setup header");
    REFUSE(f[0x201] = 0xff, SM_ECORRUPT, "setup header");
    REFUSE(f[0x1fe] = 0, SM_EINVAL, "neither");
#undef REFUSE
}

static int boot(const char *cmdline, const void *initramfs, size_t n, uint64_t ram_bytes,
    struct sm_vcpu_state *first, sm_error *err)
{
    struct elf e = good_elf();
    int kernel = file_of(&e, sizeof(e));
    int fd = initramfs ? file_of(initramfs, n) : -1;
    const struct sm_arch_boot config = {
        .ram = ram, .ram_bytes = ram_bytes, .vcpus = 2, .kernel_fd = kernel, .initramfs_fd = fd};
    int rc = sm_x86_boot_load(&config, cmdline, first, err);
    close(kernel);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int boot_only(
    const char *cmdline, const void *initramfs, size_t n, uint64_t ram_bytes, sm_error *err)
{
    auto_vcpu_state first = {0};
    return boot(cmdline, initramfs, n, ram_bytes, &first, err);
}

static uint64_t reg(const struct sm_vcpu_state *state, uint32_t id)
{
    uint64_t value = 0;
    if (!sm_reg_list_find(&state->gp, id, &value))
        fail_msg("no register %#x", id);
    return value;
}

static void boot_data_is_in_place(void **state)
{
    (void)state;
    auto_vcpu_state first = {0};
    sm_error err;
    uint8_t initramfs[5000];
    memset(initramfs, 0x33, sizeof(initramfs));
    if (boot("quiet x=y", initramfs, sizeof(initramfs), RAM, &first, &err))
        fail_msg("%s", err.message);
    uint64_t entry = reg(&first, SM_X86_GP_RIP);
    assert_int_equal(entry, 0x1000010);
    struct boot_params params;
    memcpy(&params, ram + reg(&first, SM_X86_GP_RSI), sizeof(params));
    assert_string_equal((char *)ram + params.hdr.cmd_line_ptr, "quiet x=y");
    assert_int_equal(params.hdr.ramdisk_size, 5000);
    assert_int_equal(params.hdr.ramdisk_image % 4096, 0);
    assert_true(params.hdr.ramdisk_image + 5000 <= RAM);
    assert_int_equal(ram[params.hdr.ramdisk_image + 4999], 0x33);
    assert_int_equal(params.e820_entries, 3);
    assert_int_equal(params.e820_table[2].addr, 0x100000);
    assert_int_equal(params.e820_table[2].addr + params.e820_table[2].size, RAM);
    /* Identity map: the entry's own page, by hand */
    uint64_t l4 = sm_load_le64(ram + reg(&first, SM_X86_GP_CR3));
    uint64_t l3 = sm_load_le64(ram + (l4 & ~0xfffULL));
    uint64_t l2 = sm_load_le64(ram + (l3 & ~0xfffULL) + (entry >> 21) * 8);
    assert_int_equal(l2, (entry & ~0x1fffffULL) | 0x83);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    sm_error err;
    char *words = malloc(SM_X86_CMDLINE_MAX + 2);
    memset(words, 'a', SM_X86_CMDLINE_MAX + 1);
    words[SM_X86_CMDLINE_MAX + 1] = '\0';
    assert_int_equal(boot_only(words, NULL, 0, RAM, &err), -SM_ELIMIT);
    words[SM_X86_CMDLINE_MAX] = '\0';
    assert_int_equal(boot_only(words, NULL, 0, RAM, &err), 0);
    free(words);
    assert_int_equal(boot_only("", NULL, 0, 16u << 20, &err), -SM_EINVAL);
    size_t n = 50u << 20; /* kernel ends at 16 MiB + 8 KiB, RAM at 64 */
    void *big = calloc(1, n);
    assert_int_equal(boot_only("", big, n, RAM, &err), -SM_EINVAL);
    assert_non_null(strstr(err.message, "does not fit"));
    free(big);
    assert_int_equal(boot_only("", "", 0, RAM, &err), -SM_EINVAL);
}

static void command_line(void **state)
{
    (void)state;
    const struct sm_arch_place places[] = {
        {.window = 0xd0000000, .irq = 5}, {.window = 0xd0003000, .irq = 9}};
    struct sm_arch_boot config = {.places = places, .n_places = 2};
    sm_error err;
    char *plain, *emulated;
    assert_int_equal(sm_x86_cmdline(&config, &plain, &err), 0);
    static const char devices[] =
        " virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0003000:9";
    assert_string_equal(plain + strlen(plain) - strlen(devices), devices);
    assert_null(strstr(plain, "clearcpuid"));
    config.emulated = true;
    config.words = "loud";
    assert_int_equal(sm_x86_cmdline(&config, &emulated, &err), 0);
    assert_non_null(strstr(emulated, " clearcpuid="));
    assert_string_equal(emulated + strlen(emulated) - 5, " loud");
    free(plain);
    free(emulated);
}

/* Windows that do not touch, interrupts that nobody else has, as many as the IOAPIC has pins
 * for. */
static void places(void **state)
{
    (void)state;
    struct sm_arch_place p, before = {0};
    unsigned n = 0;
    sm_error err;
    for (; sm_arch_place(n, &p, &err) == 0; n++, before = p) {
        assert_true(p.irq > before.irq && p.irq < SM_X86_IOAPIC_PINS && p.irq != 8);
        assert_true(p.window >= before.window + SM_ARCH_WINDOW_BYTES);
        assert_true(p.window >= SM_X86_RAM_LOW_END);
    }
    assert_int_equal(n, 18);
    assert_int_equal(sm_arch_place(n, &p, &err), -SM_ELIMIT);
    assert_int_equal(sm_arch_place(~0u, &p, &err), -SM_ELIMIT);
}

static void ram_goes_around_the_hole(void **state)
{
    (void)state;
    struct sm_arch_ram r;
    sm_error err;
    assert_int_equal(sm_arch_ram(3ULL << 30, &r, &err), 0);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.piece[0].bytes, 3ULL << 30);
    assert_int_equal(sm_arch_ram(64ULL << 30, &r, &err), 0);
    assert_int_equal(r.n, 2);
    assert_int_equal(r.piece[1].gpa, 4ULL << 30);
    assert_int_equal(r.piece[0].bytes + r.piece[1].bytes, 64ULL << 30);
    assert_true(sm_arch_files_base() >= r.piece[1].gpa + r.piece[1].bytes);
    assert_int_equal(sm_arch_files_base() % (2u << 20), 0);
}

static uint8_t sum(const uint8_t *p, size_t n)
{
    uint8_t s = 0;
    while (n--)
        s = (uint8_t)(s + *p++);
    return s;
}

static void mp_table(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 16; n++) {
        uint8_t t[SM_X86_MPTABLE_MAX];
        size_t bytes = sm_x86_mptable(t, n);
        assert_true(bytes <= sizeof(t));
        assert_memory_equal(t, "_MP_", 4);
        assert_int_equal(sum(t, 16), 0);
        assert_int_equal(sm_load_le32(t + 4), SM_X86_MPTABLE_GPA + 16);
        const uint8_t *h = t + 16;
        uint16_t length = sm_load_le16(h + 4);
        assert_int_equal(length + 16, bytes);
        assert_int_equal(sum(h, length), 0);
        /* Walk the entries, as the kernel does. */
        unsigned cpus = 0, interrupts = 0, entries = 0;
        const uint8_t *e = h + 44;
        for (; e < h + length; entries++) {
            if (*e == 0) {
                assert_int_equal(e[1], cpus);
                assert_int_equal(e[3], cpus == 0 ? 3 : 1);
                cpus++;
                e += 20;
                continue;
            }
            if (*e == 3) {
                assert_int_equal(e[6], n); /* the IOAPIC's id, which no CPU has */
                assert_int_equal(e[5], e[7]);
                interrupts++;
            }
            e += 8;
        }
        assert_ptr_equal(e, h + length);
        assert_int_equal(entries, sm_load_le16(h + 34));
        assert_int_equal(cpus, n);
        assert_int_equal(interrupts, 24);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(elf_is_loaded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hostile_elf_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bzimage_is_loaded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hostile_bzimage_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(boot_data_is_in_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_does_not_fit_is_refused, set_up, tear_down),
        cmocka_unit_test(command_line),
        cmocka_unit_test(places),
        cmocka_unit_test(ram_goes_around_the_hole),
        cmocka_unit_test(mp_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
