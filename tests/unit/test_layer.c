/* Layers -> ext4: what the layers say is what the image holds, e2fsck content. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "layer_util.h"
#include "builder/digest.h"
#include "rootfs/tree.h"
#include "util/bytes.h"
#include "util/cleanup.h"

static char dir[64];
static char image[96];

static int set_up(void **state)
{
    strcpy(dir, "/tmp/test_layer.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(image, sizeof(image), "%s/image.ext4", dir);
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

/* A layer in a few words: "d a/", "f a/b=text", "l a=target", "h a=target", "p a"; NULL ends. */
static struct tar *layer(const char *first, ...)
{
    struct tar *tar = tar_new();
    va_list ap;
    va_start(ap, first);
    for (const char *spec = first; spec; spec = va_arg(ap, const char *)) {
        char path[512];
        const char *eq = strchr(spec, '=');
        snprintf(path, sizeof(path), "%.*s", (int)(eq ? eq - spec - 2 : (int)strlen(spec) - 2),
            spec + 2);
        tar_add(tar, spec[0], path, eq ? eq + 1 : NULL);
    }
    va_end(ap);
    return tar;
}
#define LAYER(...) layer(__VA_ARGS__, NULL)

static int build(sm_error *err, struct tar *a, struct tar *b, struct tar *c)
{
    struct tar *layers[] = {a, b, c};
    size_t n = c ? 3 : b ? 2 : 1;
    int rc = image_build(image, layers, n, NULL, err);
    for (size_t i = 0; i < n; i++)
        tar_free(layers[i]);
    return rc;
}

/* The paths of the image with their types, as "d:/ f:/a=contents-digest-less". */
static char *brief(void)
{
    auto_free char *text = image_text(image);
    char *out = calloc(1, strlen(text) + 1);
    for (char *line = text, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        char path[512], type[32], rest[512] = "";
        if (sscanf(line, "%511s %31s %511s", path, type, rest) < 2)
            return strcat(out, line);
        if (strcmp(path, "/") == 0)
            continue;
        if (*out)
            strcat(out, " ");
        strcat(out, path);
        if (strcmp(type, "dir") == 0)
            strcat(out, "/");
        else if (strcmp(type, "hardlink") == 0)
            strcat(strcat(out, "=="), rest);
        else if (strcmp(type, "symlink") == 0) {
            char target[512] = "";
            sscanf(line, "%*s %*s %*s %*s %*s %*s %*s %511s", target);
            strcat(strcat(out, "->"), target);
        } else if (strcmp(type, "file") == 0) {
            unsigned long long size = 0;
            sscanf(line, "%*s %*s %*s %*s %*s %llu", &size);
            sprintf(out + strlen(out), "(%llu)", size);
        }
    }
    return out;
}

static void expect(const char *expected, struct tar *a, struct tar *b, struct tar *c)
{
    sm_error err = {0};
    if (build(&err, a, b, c) != 0)
        fail_msg("%s", err.message);
    auto_free char *got = brief();
    assert_string_equal(got, expected);
}

static void expect_error(enum sm_code code, const char *says, struct tar *a, struct tar *b)
{
    sm_error err = {0};
    int rc = build(&err, a, b, NULL);
    if (rc != -(int)code || !strstr(err.message, says))
        fail_msg("expected %d and \"%s\", got %d: %s", -(int)code, says, rc, err.message);
}

static void plain_files(void **state)
{
    expect("/a/ /a/b(5) /a/c->b /d(0)", LAYER("d a", "f a/b=hello", "l a/c=b", "f d"), NULL, NULL);
}

static void missing_parents_are_made(void **state)
{
    expect("/x/ /x/y/ /x/y/z(1)", LAYER("f x/y/z=1"), NULL, NULL);
}

static void whiteouts_hide_what_is_below(void **state)
{
    expect("/a/ /a/keep(1)", LAYER("d a", "f a/keep=1", "f a/gone=2", "f b=1", "f b2/c=1"),
        LAYER("f a/.wh.gone", "f .wh.b", "f .wh.b2", "f .wh.never"), NULL);
}

static void whiteouts_hide_nothing_of_their_layer(void **state)
{
    const char *want = "/d/ /d/new(3) /e(1)";
    /* in front of, between and behind what they must not hide */
    expect(want, LAYER("f d/old=1", "f e=22"),
        LAYER("f .wh.d", "f .wh.e", "d d", "f d/new=abc", "f e=1"), NULL);
    expect(want, LAYER("f d/old=1", "f e=22"),
        LAYER("d d", "f .wh.d", "f d/new=abc", "f e=1", "f .wh.e"), NULL);
    expect(want, LAYER("f d/old=1", "f e=22"), LAYER("f d/new=abc", "f e=1", "f .wh.e", "f .wh.d"),
        NULL);
}

static void opaque_directories(void **state)
{
    const char *want = "/d/ /d/sub/ /d/sub/n(1) /d/x(1)";
    struct tar *below = LAYER("f d/a=1", "f d/sub/b=1", "f d/x=333");
    expect(want, below, LAYER("f d/.wh..wh..opq", "f d/sub/n=1", "f d/x=1"), NULL);
    below = LAYER("f d/a=1", "f d/sub/b=1", "f d/x=333");
    expect(want, below, LAYER("f d/sub/n=1", "f d/x=1", "f d/.wh..wh..opq"), NULL);
    expect("/n(1)", LAYER("f a=1", "f b/c=1"), LAYER("f n=1", "f .wh..wh..opq"), NULL);
    expect("/f(2)", LAYER("f f=12"), LAYER("f f/.wh..wh..opq", "f nothing/.wh..wh..opq"), NULL);
    expect("/f(2)", LAYER("f f=12"), LAYER("f .wh..wh.plnk", "f .wh..wh.aufs"), NULL);
}

static void whiteout_through_a_link_stays_inside(void **state)
{
    expect("/d/ /d/b(1) /l->/../d", LAYER("f d/a=1", "f d/b=1", "l l=/../d"), LAYER("f l/.wh.a"),
        NULL);
}

static void kinds_replace_each_other(void **state)
{
    expect("/a/ /a/x(1) /b(1)", LAYER("f a=1", "f b/y=1", "f b/z/w=2"),
        LAYER("d a", "f a/x=1", "f b=1"), NULL);
    expect("/a->b /b/", LAYER("f a=1", "l b=a"), LAYER("l a=b", "d b"), NULL);
    /* the directory below stays when it is named again */
    expect("/a/ /a/x(1)", LAYER("f a/x=1"), LAYER("d a"), NULL);
    /* a link to a directory, named as a directory, becomes one */
    expect("/lib/ /lib/y(1) /usr/ /usr/lib/ /usr/lib/x(1)", LAYER("f usr/lib/x=1", "l lib=usr/lib"),
        LAYER("d lib", "f lib/y=1"), NULL);
}

static void last_of_two_entries_wins(void **state)
{
    expect("/a(2) /b/", LAYER("f a=1", "f b=1", "f a=22", "d b"), NULL, NULL);
    expect("/a(1)", LAYER("d a", "f a/x=1", "f a=1"), NULL, NULL);
}

static void hard_links(void **state)
{
    expect("/a(3) /b==/a /c==/a", LAYER("f a=abc", "h b=a", "h c=./b"), NULL, NULL);
    /* into the layer below; a new file under one name leaves the other */
    expect("/a(1) /b(3)", LAYER("f a=abc"), LAYER("h b=a", "f a=x"), NULL);
    expect("/b(3)", LAYER("f d/a=abc"), LAYER("h b=d/a"), LAYER("f .wh.d"));
    /* over what it links to, and onto itself */
    expect("/d(1)", LAYER("f d/a=1"), LAYER("h d=d/a"), NULL);
    expect("/a(1)", LAYER("f a=1", "h a=a"), NULL, NULL);
    expect("/a->x /b==/a", LAYER("l a=x", "h b=a"), NULL, NULL);
    expect_error(
        SM_ECORRUPT, "hard link to nothing, which is not there", LAYER("h a=nothing"), NULL);
    expect_error(SM_ECORRUPT, "hard link to the directory d", LAYER("d d", "h a=d"), NULL);
    expect_error(SM_ECORRUPT, "leads out", LAYER("h a=/../../etc/passwd"), NULL);
    expect_error(SM_ECORRUPT, "is not there", LAYER("h a=/etc/passwd"), NULL);
}

static void paths_stay_inside(void **state)
{
    expect("/a/ /a/z(1) /y(1)", LAYER("f /y=1", "f a/b/../z=1"), NULL, NULL);
    expect_error(
        SM_ECORRUPT, "../../etc/x leads out of the image's root", LAYER("f ../../etc/x=1"), NULL);
    expect_error(SM_ECORRUPT, "leads out of the image's root", LAYER("f a/b/../../../z=1"), NULL);
    expect_error(SM_ECORRUPT, "leads out of the image's root", LAYER("f ../.wh.x"), NULL);
    /* parents that are links: absolute, upward, dangling */
    expect("/tmp/ /tmp/x(1) /up->../../../../tmp /w->/tmp",
        LAYER("l w=/tmp", "l up=../../../../tmp"), LAYER("f w/x=22", "f up/x=1"), NULL);
    expect("/new/ /new/f(1) /w->/new", LAYER("l w=/new", "f w/f=1"), NULL, NULL);
    expect_error(SM_ECORRUPT, "too many symbolic links", LAYER("l a=b", "l b=a", "f a/x=1"), NULL);
    expect_error(SM_ECORRUPT, "is used as a directory", LAYER("f a=1", "f a/b=1"), NULL);
    expect_error(SM_ECORRUPT, "replace the root", LAYER("f .=1"), NULL);
    expect_error(SM_ECORRUPT, "whiteout without a valid name", LAYER("f a/.wh.."), NULL);
    expect_error(SM_ECORRUPT, "whiteout without a valid name", LAYER("f a/.wh..."), NULL);
    expect_error(SM_ECORRUPT, "whiteout without a valid name", LAYER("f a/.wh."), NULL);
}

static void attributes(void **state)
{
    struct tar *tar = tar_new();
    struct archive_entry *e = tar_entry("suid", S_IFREG | 06755, 3);
    archive_entry_set_uid(e, 70000);
    archive_entry_set_gid(e, 4000000000u);
    archive_entry_set_mtime(e, 5000000000, 5);
    archive_entry_xattr_add_entry(e, "user.z", "1", 1);
    archive_entry_xattr_add_entry(e, "user.a", "2\0003", 3);
    archive_entry_xattr_add_entry(
        e, "security.capability", "\1\0\0\2\0\40\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    archive_entry_xattr_add_entry(e, "btrfs.compression", "zstd", 4);
    tar_add_entry(tar, e, "abc", 3);
    e = tar_entry("null", S_IFCHR | 0666, 0);
    archive_entry_set_rdevmajor(e, 1);
    archive_entry_set_rdevminor(e, 3);
    tar_add_entry(tar, e, NULL, 0);
    e = tar_entry("nvme", S_IFBLK | 0660, 0);
    archive_entry_set_rdevmajor(e, 259);
    archive_entry_set_rdevminor(e, 70000);
    tar_add_entry(tar, e, NULL, 0);
    tar_add(tar, 'p', "fifo", NULL);
    e = tar_entry("sticky", S_IFDIR | 01777, 0);
    char big[3000];
    memset(big, 'x', sizeof(big));
    archive_entry_xattr_add_entry(e, "user.big", big, sizeof(big));
    tar_add_entry(tar, e, NULL, 0);
    sm_error err = {0};
    if (build(&err, tar, NULL, NULL) != 0)
        fail_msg("%s", err.message);
    auto_free char *text = image_text(image);
    assert_non_null(
        strstr(text, "/suid file 6755 70000 4000000000 3 5000000000 "
                     "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    assert_non_null(strstr(text, "xattr:user.z=31"));
    assert_non_null(strstr(text, "xattr:user.a=320033"));
    assert_non_null(
        strstr(text, "xattr:security.capability=0100000200200000000000000000000000000000"));
    assert_null(strstr(text, "btrfs"));
    assert_non_null(strstr(text, "/null char 0666 0 0 0 1000 1:3\n"));
    assert_non_null(strstr(text, "/nvme block 0660 0 0 0 1000 259:70000\n"));
    assert_non_null(strstr(text, "/fifo fifo 0644 0 0 0 1000 -\n"));
    assert_non_null(strstr(text, "/sticky dir 1777 0 0 0 1000 - xattr:user.big=787878"));
}

static void too_many_attributes_are_refused(void **state)
{
    struct tar *tar = tar_new();
    struct archive_entry *e = tar_entry("x", S_IFREG | 0755, 0);
    char big[3000];
    memset(big, 'x', sizeof(big));
    archive_entry_xattr_add_entry(e, "user.a", big, sizeof(big));
    archive_entry_xattr_add_entry(e, "user.b", big, sizeof(big));
    tar_add_entry(tar, e, NULL, 0);
    expect_error(SM_ELIMIT, "extended attributes", tar, NULL);
}

static void long_names_and_links(void **state)
{
    char name[256], path[4200] = "", target[300];
    memset(name, 'n', 255);
    name[255] = '\0';
    memset(target, 't', 299);
    target[299] = '\0';
    struct tar *tar = tar_new();
    for (int i = 0; i < 10; i++)
        snprintf(path + strlen(path), sizeof(path) - strlen(path), "%s/", name);
    strcat(path, "end");
    tar_add(tar, 'f', path, "deep");
    tar_add(tar, 'l', "link", target);
    tar_add(tar, 'l', "edge", "12345678901234567890123456789012345678901234567890123456789");
    tar_add(tar, 'l', "edge2", "123456789012345678901234567890123456789012345678901234567890");
    tar_add(tar, 'f', "gr\xc3\xbc\xc3\x9f", "utf8");
    sm_error err = {0};
    assert_int_equal(build(&err, tar, NULL, NULL), 0);
    auto_free char *text = image_text(image);
    assert_non_null(strstr(text, path));
    assert_non_null(strstr(text, target));
    assert_non_null(strstr(text, " 12345678901234567890123456789012345678901234567890123456789\n"));
    assert_non_null(
        strstr(text, " 123456789012345678901234567890123456789012345678901234567890\n"));
    assert_non_null(strstr(text, "/gr\xc3\xbc\xc3\x9f file"));
}

static void what_is_too_long_or_deep_is_refused(void **state)
{
    char name[300];
    memset(name, 'n', 256);
    name[256] = '\0';
    struct tar *tar = tar_new();
    tar_add(tar, 'f', name, "1");
    expect_error(SM_ELIMIT, "longer than 255", tar, NULL);
    char deep[1024] = "";
    for (int i = 0; i < 256; i++)
        strcat(deep, "d/");
    strcat(deep, "x");
    tar = tar_new();
    tar_add(tar, 'f', deep, "1");
    expect_error(SM_ELIMIT, "nested deeper", tar, NULL);
    char path[5000];
    for (size_t i = 0; i < sizeof(path); i++)
        path[i] = i % 100 == 99 ? '/' : 'p';
    path[sizeof(path) - 1] = '\0';
    tar = tar_new();
    tar_add(tar, 'f', path, "1");
    expect_error(SM_ELIMIT, "longer than 4096", tar, NULL);
}

/* Links that lead through long targets cost what they walk: there is a bound on all of it. */
static void walks_through_links_are_bounded(void **state)
{
    struct sm_tree tree;
    sm_error err = {0};
    const char *name;
    struct sm_node *found, *node;
    assert_int_equal(sm_tree_init(&tree, 100, NULL, NULL, &err), 0);
    struct sm_inode *link = sm_inode_new(S_IFLNK | 0777);
    link->target = strdup("./././././././././././././././././././.");
    assert_int_equal(sm_tree_add(&tree, tree.root, "l", 1, link, &node, &err), 0);
    sm_inode_put(&tree, link);
    tree.steps_left = 1000;
    unsigned walks = 0;
    int rc;
    while ((rc = sm_tree_parent(&tree, "l/l/x", false, &found, &name, &err)) == 0 && walks < 100)
        walks++;
    assert_int_equal(rc, -SM_ELIMIT);
    assert_in_range(walks, 20, 30); /* 40 components each */
    assert_non_null(strstr(err.message, "too many symbolic links"));
    assert_int_equal(sm_tree_parent(&tree, "a/x", false, &found, &name, &err), 0);
    assert_int_equal(sm_tree_parent(&tree, "l/x", false, &found, &name, &err), -SM_ELIMIT);
    sm_tree_clear(&tree);
}

static void large_directories_are_indexed(void **state)
{
    struct tar *tar = tar_new();
    char name[64];
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "dir/file-with-some-name-%d", i);
        tar_add(tar, 'f', name, "x");
    }
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "dir/sub%d", i);
        tar_add(tar, 'd', name, NULL);
    }
    sm_error err = {0};
    assert_int_equal(build(&err, tar, NULL, NULL), 0);
    auto_free char *text = image_text(image);
    size_t lines = 0;
    for (const char *p = text; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 5000 + 300 + 2);
    char command[256];
    snprintf(command, sizeof(command),
        "PATH=$PATH:/sbin debugfs -R 'htree_dump /dir' '%s' 2>&1 | grep -q 'Number of entries "
        "(count)'",
        image);
    assert_int_equal(system(command), 0);
}

static void sparse_and_large_files(void **state)
{
    struct tar *tar = tar_new();
    size_t size = 9 << 20;
    char *data = malloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 7919 >> 8);
    memset(data + (3 << 20), 0, 1 << 20);
    struct archive_entry *e = tar_entry("big", S_IFREG | 0644, size);
    tar_add_entry(tar, e, data, size);
    e = tar_entry("sparse", S_IFREG | 0644, size);
    for (int i = 0; i < 8; i++)
        archive_entry_sparse_add_entry(e, (la_int64_t)i << 20, 5000);
    for (int i = 0; i < 8; i++)
        memset(data + (i << 20) + 5000, 0, (1 << 20) - 5000);
    memset(data + (8 << 20), 0, 1 << 20);
    tar_add_entry(tar, e, data, size);
    char want[SM_DIGEST_LEN + 1];
    assert_int_equal(sm_digest_of(data, size, want, NULL), 0);
    free(data);
    sm_error err = {0};
    if (build(&err, tar, NULL, NULL) != 0)
        fail_msg("%s", err.message);
    auto_free char *text = image_text(image);
    char *line = strstr(text, "/sparse file 0644 0 0 9437184 1000 ");
    assert_non_null(line);
    assert_non_null(strstr(line, want));
    struct stat st;
    assert_int_equal(stat(image, &st), 0);
    assert_int_equal(st.st_size % (2 << 20), 0);
    assert_true(st.st_blocks * 512 < 10 << 20);
}

static void replaced_contents_are_given_back(void **state)
{
    static char text[600000];
    memset(text, 'a', sizeof(text) - 1);
    struct tar *layers[40];
    for (size_t i = 0; i < SM_ARRAY_LEN(layers); i++)
        layers[i] = LAYER("d d");
    for (size_t i = 0; i < SM_ARRAY_LEN(layers); i++)
        tar_add(layers[i], 'f', i % 2 ? "a" : "d/b", text);
    sm_error err = {0};
    assert_int_equal(image_build(image, layers, SM_ARRAY_LEN(layers), NULL, &err), 0);
    for (size_t i = 0; i < SM_ARRAY_LEN(layers); i++)
        tar_free(layers[i]);
    auto_free char *got = brief();
    assert_string_equal(got, "/a(599999) /d/ /d/b(599999)");
    struct stat st;
    assert_int_equal(stat(image, &st), 0);
    assert_true(st.st_size <= 8 << 20);
}

static void same_layers_same_bytes(void **state)
{
    char sums[2][SM_DIGEST_LEN + 1];
    for (int round = 0; round < 2; round++) {
        sm_error err = {0};
        assert_int_equal(build(&err, LAYER("f a/b=1", "f a/c=2", "l s=a", "d e"),
                             LAYER("f .wh.s", "f z=9"), NULL),
            0);
        FILE *f = fopen(image, "r");
        size_t room = 8 << 20;
        char *data = malloc(room);
        size_t n = fread(data, 1, room, f);
        fclose(f);
        assert_int_equal(sm_digest_of(data, n, sums[round], NULL), 0);
        free(data);
        unlink(image);
        if (round == 0)
            usleep(1100000); /* a clock that got in would show */
    }
    assert_string_equal(sums[0], sums[1]);
}

static void limits_hold(void **state)
{
    struct tar *tar = LAYER("f a=1", "f b=1", "f c=1", "f d=1");
    sm_error err = {0};
    struct sm_rootfs_limits few = {.files = 4};
    assert_int_equal(image_build(image, &tar, 1, &few, &err), -SM_ELIMIT);
    tar_free(tar);
    tar = tar_new();
    for (int i = 0; i < 40; i++)
        tar_add(tar, 'f', "same", "1");
    assert_int_equal(image_build(image, &tar, 1, &few, &err), -SM_ELIMIT);
    tar_free(tar);
    tar = tar_new();
    static char mib[1 << 20];
    memset(mib, 'm', sizeof(mib) - 1);
    for (int i = 0; i < 20; i++)
        tar_add(tar, 'f', "same", mib);
    struct sm_rootfs_limits small = {.bytes = 8 << 20};
    assert_int_equal(image_build(image, &tar, 1, &small, &err), -SM_ELIMIT);
    tar_free(tar);
    struct tar *layers[] = {LAYER("d a"), LAYER("d b"), LAYER("d c")};
    struct sm_rootfs_limits two = {.layers = 2};
    assert_int_equal(image_build(image, layers, 3, &two, &err), -SM_ELIMIT);
    for (int i = 0; i < 3; i++)
        tar_free(layers[i]);
}

static void broken_archives_are_refused(void **state)
{
    struct tar *tar = tar_new();
    static char text[100000];
    memset(text, 'q', sizeof(text) - 1);
    tar_add(tar, 'f', "a", text);
    tar_add(tar, 'f', "b", text);
    tar_end(tar);
    sm_error err = {0};
    static const size_t cuts[] = {100, 600, 50000, 100600, 101000};
    for (size_t i = 0; i < SM_ARRAY_LEN(cuts); i++) {
        int rc = image_build_raw(image, tar->data, cuts[i], 4096, &err);
        if (rc != -SM_ECORRUPT)
            fail_msg("cut at %zu gave %d", cuts[i], rc);
    }
    tar->data[0] ^= 1;
    assert_int_equal(image_build_raw(image, tar->data, tar->size, 4096, &err), -SM_ECORRUPT);
    tar->data[0] ^= 1;
    for (size_t chunk = 1; chunk < 3000; chunk = chunk * 3 + 1)
        assert_int_equal(image_build_raw(image, tar->data, tar->size, chunk, &err), 0);
    tar_free(tar);
    assert_int_equal(image_build_raw(image, "", 0, 1, &err), 0);
    static const char zeros[1024];
    assert_int_equal(image_build_raw(image, zeros, sizeof(zeros), 512, &err), 0);
    assert_int_equal(
        image_build_raw(image, "not a tar archive at all", 24, 24, &err), -SM_ECORRUPT);
}

int main(void)
{
    setlocale(LC_CTYPE, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_files),
        cmocka_unit_test(missing_parents_are_made),
        cmocka_unit_test(whiteouts_hide_what_is_below),
        cmocka_unit_test(whiteouts_hide_nothing_of_their_layer),
        cmocka_unit_test(opaque_directories),
        cmocka_unit_test(whiteout_through_a_link_stays_inside),
        cmocka_unit_test(kinds_replace_each_other),
        cmocka_unit_test(last_of_two_entries_wins),
        cmocka_unit_test(hard_links),
        cmocka_unit_test(paths_stay_inside),
        cmocka_unit_test(attributes),
        cmocka_unit_test(too_many_attributes_are_refused),
        cmocka_unit_test(long_names_and_links),
        cmocka_unit_test(what_is_too_long_or_deep_is_refused),
        cmocka_unit_test(walks_through_links_are_bounded),
        cmocka_unit_test(large_directories_are_indexed),
        cmocka_unit_test(sparse_and_large_files),
        cmocka_unit_test(replaced_contents_are_given_back),
        cmocka_unit_test(same_layers_same_bytes),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(broken_archives_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
