/* The codec against golden files that another program made, and against liars. */
#include "snapshot_util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/codec.h"
#include "util/crc32c.h"
#include "util/bytes.h"

static const char *const all[] = {"aarch64-1cpu", "aarch64-2cpu", "x86_64-4cpu", "x86_64-roles"};

static size_t meta_bytes(const uint8_t *file)
{
    return sm_load_le64(file + 64);
}

static int decode(const uint8_t *file, size_t len, struct sm_snapshot **s, sm_error *err)
{
    uint64_t ram_offset = 0;
    int rc = sm_snapshot_decode_header(file, len, len, &ram_offset, err);
    return rc ? rc : sm_snapshot_decode(file, SM_MIN(len, ram_offset), len, s, err);
}

/* The end of what is not padding. */
static size_t used_bytes(const uint8_t *file)
{
    size_t n = meta_bytes(file);
    while (file[n - 1] == 0)
        n--;
    return n;
}

static void golden_files_survive_both_ways(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(all); i++) {
        size_t len;
        uint8_t *file = golden(all[i], &len), *again = NULL;
        sm_error err = {0};
        struct sm_snapshot *s = NULL;
        if (decode(file, len, &s, &err))
            fail_msg("%s: %s", all[i], err.message);
        uint64_t bytes = 0;
        assert_int_equal(sm_snapshot_encode(s, 0, &again, &bytes, &err), 0);
        assert_int_equal(bytes, meta_bytes(file));
        assert_int_equal(s->ram_offset, bytes);
        assert_int_equal(s->memory_bytes, len - bytes);
        assert_memory_equal(file, again, bytes);
        sm_snapshot_free(s);
        free(again);
        free(file);
    }
}

/* Writes the role and reads the file again; rc of the reading, *s if it is 0. Byte `flip` of the
 * roles is made `what`. */
static int with_roles(
    struct sm_snapshot *from, int flip, uint8_t what, struct sm_snapshot **s, sm_error *err)
{
    uint8_t *file = NULL;
    uint64_t bytes = 0;
    assert_int_equal(sm_snapshot_encode(from, 0, &file, &bytes, err), 0);
    if (flip >= 0) {
        const uint8_t head[] = {'S', 'M', 'X', 'B', 7, 0, 1, 0};
        uint8_t *block = memmem(file, bytes, head, sizeof(head));
        assert_non_null(block);
        block[16 + flip] = what;
        const uint8_t sum[] = {'S', 'M', 'X', 'B', 6, 0, 1, 0};
        uint8_t *at = memmem(file, bytes, sum, sizeof(sum));
        sm_store_le32(at + 16, 0);
        sm_store_le32(at + 16, sm_crc32c(0, file, bytes));
    }
    int rc = sm_snapshot_decode(file, bytes, bytes + from->memory_bytes, s, err);
    free(file);
    return rc;
}

/* The block is an extension: who wrote before there was one said nothing of roles. */
static void roles_are_read_where_they_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *file, *roles[3];
    } rows[] = {
        {"x86_64-4cpu", {"", "", ""}},
        {"aarch64-2cpu", {"", "", ""}},
        {"x86_64-roles", {"", "vol:/the-longest-role-there-is!", "vsock"}},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        size_t len;
        uint8_t *file = golden(rows[i].file, &len);
        struct sm_snapshot *s = NULL;
        assert_int_equal(decode(file, len, &s, NULL), 0);
        assert_int_equal(s->n_devices, SM_ARRAY_LEN(rows[i].roles));
        for (size_t k = 0; k < SM_ARRAY_LEN(rows[i].roles); k++)
            assert_string_equal(s->devices[k].role, rows[i].roles[k]);
        sm_snapshot_free(s);
        free(file);
    }
}

static void devices_keep_their_roles(void **state)
{
    (void)state;
    size_t len;
    uint8_t *file = golden("x86_64-4cpu", &len);
    struct sm_snapshot *s = NULL, *again = NULL;
    sm_error err;
    assert_int_equal(decode(file, len, &s, &err), 0);
    assert_true(s->n_devices >= 2);
    assert_string_equal(s->devices[0].role, ""); /* the file says nothing of them */
    strcpy(s->devices[1].role, "vol:/data");
    assert_int_equal(with_roles(s, -1, 0, &again, &err), 0);
    assert_string_equal(again->devices[0].role, "");
    assert_string_equal(again->devices[1].role, "vol:/data");
    sm_snapshot_free(again);
    again = NULL;
    /* Something behind the zeros; bytes that no text of ours has, and that JSON could not hold. */
    const int one = SM_SNAPSHOT_ROLE_BYTES;
    assert_int_equal(with_roles(s, 2 * one - 1, 'x', &again, &err), -SM_ECORRUPT);
    assert_non_null(strstr(err.message, "role of device 1 is not a text"));
    assert_int_equal(with_roles(s, one, 0xff, &again, &err), -SM_ECORRUPT);
    assert_non_null(strstr(err.message, "role of device 1 is not a text"));
    assert_int_equal(with_roles(s, one + 3, '\n', &again, &err), -SM_ECORRUPT);
    /* Of two devices the same: nobody writes that, and nobody reads it. */
    strcpy(s->devices[0].role, "vol:/date");
    assert_int_equal(with_roles(s, 8, 'a', &again, &err), -SM_ECORRUPT);
    assert_non_null(strstr(err.message, "that of another one"));
    uint8_t *refused = NULL;
    uint64_t bytes;
    strcpy(s->devices[0].role, "vol:/data");
    assert_int_equal(sm_snapshot_encode(s, 0, &refused, &bytes, &err), -SM_EINVAL);
    assert_null(refused);
    sm_snapshot_free(s);
    free(file);
}

static void aarch64_fields_are_where_they_belong(void **state)
{
    (void)state;
    size_t len;
    uint8_t *file = golden("aarch64-2cpu", &len);
    struct sm_snapshot *s = NULL;
    assert_int_equal(decode(file, len, &s, NULL), 0);
    assert_int_equal(s->arch, SM_ARCH_UNMARKED);
    assert_false(s->checked);
    assert_int_equal(s->captured_host_ns, 123456789012);
    assert_int_equal(s->captured_guest_clock, 987654321);
    assert_int_equal(s->ram_gpa, 0x40000000);
    assert_int_equal(s->irqchip_bytes, 301);
    assert_int_equal(s->irqchip[300], (300 * 7) & 255);
    assert_int_equal(s->n_vcpus, 2);
    const struct sm_vcpu_state *v = &s->vcpus[1];
    assert_true(v->vtimer_offset == 0xFFFFFFFF00000001);
    assert_int_equal(v->gp.n, 35);
    assert_int_equal(v->gp.v[31].id, 31);
    assert_int_equal(v->gp.v[31].value, 0x40080001);
    assert_int_equal(v->simd.n, 32);
    assert_true(v->simd.v[3].hi == 0x010203040506070B && v->simd.v[3].lo == 0xA0B0C0D0E0F00001);
    assert_int_equal(v->sys.v[1].id, 0xC080); /* SCTLR_EL1 */
    assert_int_equal(v->icc.n, 3);
    assert_int_equal(v->redist.v[12].id, 0x1041C);
    assert_int_equal(s->n_devices, 3);
    const struct sm_virtio_state *d = &s->devices[0].state;
    assert_int_equal(d->driver_features[0], 1);
    assert_int_equal(d->driver_features[1], 1);
    assert_int_equal(d->status, 15);
    assert_int_equal(d->interrupt_status, 1);
    assert_int_equal(d->n_queues, 2);
    assert_int_equal(d->queues[0].size, 256);
    assert_int_equal(d->queues[0].ready, 1);
    assert_int_equal(d->queues[0].desc, 0x40100000);
    assert_int_equal(d->queues[0].avail, 0x40101000);
    assert_int_equal(d->queues[0].used, 0x40102000);
    assert_int_equal(d->queues[0].last_avail_idx, 65535);
    assert_int_equal(d->queues[0].next_used_idx, 7);
    assert_int_equal(s->n_listeners, 2);
    assert_int_equal(s->listeners[1].cid, 3);
    assert_int_equal(s->listeners[1].peer_port, 0xFFFFFFFF);
    assert_int_equal(s->listeners[1].vm_port, 53);
    assert_int_equal(s->listeners[1].family, 10);
    assert_int_equal(s->listeners[1].socktype, 2);
    sm_snapshot_free(s);
    free(file);
}

static void extension_blocks_are_read(void **state)
{
    (void)state;
    size_t len;
    uint8_t *file = golden("x86_64-4cpu", &len);
    struct sm_snapshot *s = NULL;
    assert_int_equal(decode(file, len, &s, NULL), 0);
    assert_int_equal(s->arch, SM_ARCH_X86_64);
    assert_true(s->checked);
    assert_int_equal(s->n_vcpus, 4);
    assert_int_equal(s->build.kernel[31], 0x11);
    assert_int_equal(s->build.agent[0], 0x22);
    assert_int_equal(s->build.vmm[0], 0x33);
    assert_int_equal(s->build.rootfs[0], 0x44);
    assert_int_equal(s->cpu_digest[31], 31);
    assert_int_equal(s->n_cpu_words, 2);
    assert_int_equal(s->cpu_words[1].id, 7);
    assert_int_equal(s->cpu_words[1].sub, 1);
    assert_int_equal(s->cpu_words[1].value, 0x219C91A9);
    assert_int_equal(s->n_regions, 1);
    assert_int_equal(s->regions[0].size, s->memory_bytes);
    assert_int_equal(s->devices[1].virtio_id, 27);
    assert_int_equal(s->devices[1].config[0], 1ull << 40);
    assert_int_equal(s->devices[2].irq, 7);
    assert_int_equal(s->devices[2].state.extra[2], 2);
    assert_int_equal(s->devices[2].state.extra[3], 1026);
    assert_string_equal(s->note, "café, warm");
    assert_int_equal(s->n_ram_sums, 3);
    sm_snapshot_free(s);
    free(file);
}

static void unknown_blocks_are_skipped(void **state)
{
    (void)state;
    size_t len;
    uint8_t *file = golden("x86_64-unknown-blocks", &len);
    struct sm_snapshot *s = NULL;
    assert_int_equal(decode(file, len, &s, NULL), 0);
    assert_true(s->checked);
    assert_string_equal(s->note, "café, warm");
    sm_snapshot_free(s);
    free(file);
}

static void every_truncation_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(all); i++) {
        size_t len;
        uint8_t *file = golden(all[i], &len);
        for (size_t cut = 0; cut < len; cut += cut < used_bytes(file) + 64 ? 1 : 509) {
            /* a buffer of just that size, so that a sanitizer sees who reads on */
            uint8_t *part = malloc(cut ? cut : 1);
            memcpy(part, file, cut);
            sm_error err = {0};
            struct sm_snapshot *s = NULL;
            assert_int_equal(decode(part, cut, &s, &err), -SM_ECORRUPT);
            if (!strstr(err.message, "truncated"))
                fail_msg("%s cut to %zu: %s", all[i], cut, err.message);
            free(part);
        }
        free(file);
    }
}

static void each_header_lie_has_its_own_error(void **state)
{
    (void)state;
    static const struct {
        unsigned at, bytes;
        uint64_t value;
        enum sm_code code;
        const char *sentence;
    } lies[] = {
        {0, 1, 'X', SM_ECORRUPT, "wrong magic"},
        {7, 1, 1, SM_ECORRUPT, "wrong magic"},
        {8, 8, 9, SM_EUNSUPPORTED, "version 9"},
        {8, 8, 7, SM_EUNSUPPORTED, "version 7"},
        {32, 8, 0, SM_ECORRUPT, "0 bytes of RAM"},
        {32, 8, 4097, SM_ECORRUPT, "bytes of RAM"},
        {32, 8, UINT64_MAX & ~4095ull, SM_ECORRUPT, "bytes of RAM"},
        {32, 8, 1ull << 30, SM_ECORRUPT, "ends inside of its RAM"},
        {40, 8, UINT64_MAX, SM_ECORRUPT, "gic_blob_len"},
        {40, 8, 5u << 20, SM_ECORRUPT, "gic_blob_len"},
        {40, 8, 1u << 20, SM_ECORRUPT, "blob"},
        {48, 4, 0, SM_ECORRUPT, "snapshot contains no vCPU state"},
        {48, 4, UINT32_MAX, SM_ECORRUPT, "n_vcpus"},
        {48, 4, 256, SM_ECORRUPT, "vCPU"},
        {56, 8, UINT64_MAX - 4095, SM_ECORRUPT, "bytes of RAM"},
        {64, 8, 0, SM_ECORRUPT, "not past the metadata"},
        {64, 8, 16385, SM_ECORRUPT, "not a multiple"},
        {64, 8, UINT64_MAX - 16383, SM_ECORRUPT, "too large"},
        {64, 8, 64u << 20, SM_ECORRUPT, "truncated"},
    };
    size_t len;
    uint8_t *file = golden("aarch64-2cpu", &len), *liar = malloc(len);
    for (size_t i = 0; i < SM_ARRAY_LEN(lies); i++) {
        memcpy(liar, file, len);
        for (unsigned b = 0; b < lies[i].bytes; b++)
            liar[lies[i].at + b] = (uint8_t)(lies[i].value >> 8 * b);
        sm_error err = {0};
        struct sm_snapshot *s = NULL;
        assert_int_equal(decode(liar, len, &s, &err), -(int)lies[i].code);
        if (!strstr(err.message, lies[i].sentence))
            fail_msg("lie %zu at %u: %s", i, lies[i].at, err.message);
    }
    free(liar);
    free(file);
}

/* Every aligned or unaligned 32-bit word set to what a count must not be: refused or harmless. */
static void lying_counts_never_crash(void **state)
{
    (void)state;
    static const uint32_t values[] = {UINT32_MAX, 0x80000000, 65537, 4097, 513, 9, 0};
    for (size_t i = 0; i < SM_ARRAY_LEN(all); i++) {
        size_t len;
        uint8_t *file = golden(all[i], &len);
        size_t meta = meta_bytes(file);
        uint8_t *liar = malloc(meta);
        for (size_t at = 72; at + 4 <= used_bytes(file); at++) {
            for (size_t k = 0; k < SM_ARRAY_LEN(values); k++) {
                memcpy(liar, file, meta);
                sm_store_le32(liar + at, values[k]);
                struct sm_snapshot *s = NULL;
                sm_error err = {0};
                int rc = sm_snapshot_decode(liar, meta, len, &s, &err);
                if (rc == 0 && sm_load_le32(file + 52) && memcmp(liar, file, meta))
                    fail_msg("%s: %u at %zu went unnoticed", all[i], values[k], at);
                sm_snapshot_free(s);
            }
        }
        free(liar);
        free(file);
    }
}

static void flip_all(const char *name)
{
    size_t len;
    uint8_t *file = golden(name, &len);
    size_t meta = meta_bytes(file), used = used_bytes(file);
    bool marked = sm_load_le32(file + 52) != 0;
    for (size_t bit = 0; bit < meta * 8; bit += bit < (used + 16) * 8 ? 1 : 61) {
        if (bit / 8 >= 64 && bit / 8 < 72)
            continue; /* ram_offset: below */
        file[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct sm_snapshot *s = NULL;
        sm_error err = {0};
        int rc = sm_snapshot_decode(file, meta, len, &s, &err);
        if (rc == 0 && marked)
            fail_msg("%s: bit %zu flipped and nobody noticed", name, bit);
        if (rc)
            assert_true(rc == -SM_ECORRUPT || rc == -SM_EUNSUPPORTED);
        if (rc == 0) { /* it must then say what the file says */
            uint8_t *again = NULL;
            uint64_t bytes;
            assert_int_equal(sm_snapshot_encode(s, meta, &again, &bytes, &err), 0);
            size_t differ = 0, said = used_bytes(again); /* a flipped count may leave bytes over */
            for (size_t i = 0; i < said; i++)
                differ += again[i] != file[i];
            assert_true(differ <= 1); /* the pad byte of a queue is not kept */
            free(again);
        }
        sm_snapshot_free(s);
        file[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t bit = 64 * 8; bit < 72 * 8; bit++) {
        file[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct sm_snapshot *s = NULL;
        assert_int_equal(decode(file, len, &s, NULL), -SM_ECORRUPT);
        file[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(file);
}

static void every_flipped_bit_is_noticed_or_harmless(void **state)
{
    (void)state;
    flip_all("aarch64-1cpu");
    flip_all("aarch64-2cpu");
    flip_all("x86_64-4cpu");
    flip_all("x86_64-unknown-blocks");
}

static void encoder_keeps_an_offset_or_refuses(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(1 << 20, true);
    uint8_t *buf = NULL;
    uint64_t bytes = 0;
    sm_error err = {0};
    assert_int_equal(sm_snapshot_encode(s, 65536, &buf, &bytes, &err), 0);
    assert_int_equal(bytes, 65536);
    struct sm_snapshot *back = NULL;
    assert_int_equal(sm_snapshot_decode(buf, bytes, bytes + (1 << 20), &back, &err), 0);
    assert_int_equal(back->ram_offset, 65536);
    assert_int_equal(back->devices[1].state.extra[0], 1234);
    sm_snapshot_free(back);
    free(buf);
    buf = NULL;
    for (uint32_t i = 0; i < 2000; i++)
        assert_int_equal(sm_reg_list_add(&s->vcpus[0].sys, i, i, NULL), 0);
    assert_int_equal(sm_snapshot_encode(s, 16384, &buf, &bytes, &err), -SM_EUNSUPPORTED);
    assert_null(buf);
    assert_non_null(strstr(err.message, "does not fit"));
    sm_snapshot_free(s);
}

static void encoder_writes_nothing_that_no_reader_takes(void **state)
{
    (void)state;
    uint8_t *buf = NULL;
    uint64_t bytes;
    struct sm_snapshot *s = make_snapshot(1 << 20, false);
    uint32_t keep = s->n_vcpus;
    s->n_vcpus = 0;
    assert_int_equal(sm_snapshot_encode(s, 0, &buf, &bytes, NULL), -SM_EINVAL);
    s->n_vcpus = keep;
    s->memory_bytes = 1000;
    assert_int_equal(sm_snapshot_encode(s, 0, &buf, &bytes, NULL), -SM_EINVAL);
    s->memory_bytes = 1 << 20;
    s->devices[0].state.n_queues = SM_VIRTIO_MAX_QUEUES + 1;
    assert_int_equal(sm_snapshot_encode(s, 0, &buf, &bytes, NULL), -SM_ELIMIT);
    s->devices[0].state.n_queues = 0;
    for (uint32_t i = 0; i < SM_VCPU_MAX_GP + 1; i++)
        assert_int_equal(sm_reg_list_add(&s->vcpus[1].gp, i, i, NULL), 0);
    assert_int_equal(sm_snapshot_encode(s, 0, &buf, &bytes, NULL), -SM_ELIMIT);
    assert_null(buf);
    sm_snapshot_free(s);
}

static void crc32c_is_the_standard_one(void **state)
{
    (void)state;
    assert_int_equal(sm_crc32c(0, "123456789", 9), 0xE3069283);
    assert_int_equal(sm_crc32c_by_table(0, "123456789", 9), 0xE3069283);
    uint8_t data[100];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 37);
    for (size_t n = 0; n < sizeof(data); n++) {
        uint32_t whole = sm_crc32c(0, data, n);
        assert_int_equal(whole, sm_crc32c_by_table(0, data, n));
        assert_int_equal(whole, sm_crc32c(sm_crc32c(0, data, n / 3), data + n / 3, n - n / 3));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_files_survive_both_ways),
        cmocka_unit_test(roles_are_read_where_they_are_told),
        cmocka_unit_test(devices_keep_their_roles),
        cmocka_unit_test(aarch64_fields_are_where_they_belong),
        cmocka_unit_test(extension_blocks_are_read),
        cmocka_unit_test(unknown_blocks_are_skipped),
        cmocka_unit_test(every_truncation_is_named),
        cmocka_unit_test(each_header_lie_has_its_own_error),
        cmocka_unit_test(lying_counts_never_crash),
        cmocka_unit_test(every_flipped_bit_is_noticed_or_harmless),
        cmocka_unit_test(encoder_keeps_an_offset_or_refuses),
        cmocka_unit_test(encoder_writes_nothing_that_no_reader_takes),
        cmocka_unit_test(crc32c_is_the_standard_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
