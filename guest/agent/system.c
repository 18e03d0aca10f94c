/*
 * Clock, entropy, host name, machine id and name servers.
 *
 * This is what stands between a restore and the first instruction of the user's, so it costs as few
 * system calls as it can: the descriptors are opened at boot. The identity files are written
 * through the overlay's upper file system, below the overlay, which has no page cache of its own
 * and so shows what was written. A file that somebody changed or replaced meanwhile is his: we
 * change only what is as we left it, of hosts what stands behind lines in front, except the machine
 * id, which must differ and is written to the new file if need be.
 */
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "wire/wire.h"

#define HOSTS_HEAD    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
#define HOSTS_GATEWAY "\t" SM_WIRE_GATEWAY_NAME " host.docker.internal\n"
#define ADDRESS_TEXT  40 /* the longest, with what ends it */

#define TEXT_MAX (SM_WIRE_MAX_RESOLV + 1)
_Static_assert(
    TEXT_MAX > sizeof(HOSTS_HEAD HOSTS_GATEWAY) + 2 * ADDRESS_TEXT + SM_WIRE_MAX_HOSTNAME,
    "all texts fit");

struct text_file {
    int fd;
    size_t len;
    char text[TEXT_MAX];
};

static struct text_file hosts = {.fd = -1}, hostname_file = {.fd = -1},
                        machine_id_file = {.fd = -1}, resolver = {.fd = -1};
static int random_device = -1;
static bool journal_is_kept;

void *system_alloc(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void system_free(void *p, size_t size)
{
    munmap(p, size);
}

/* Fails with errno. */
static int write_text(struct text_file *f, size_t at, const char *text, size_t len)
{
    if (pwrite(f->fd, text, len, (off_t)at) != (ssize_t)len)
        return -1;
    if (len < f->len && ftruncate(f->fd, (off_t)(at + len)) != 0)
        return -1;
    memcpy(f->text, text, len);
    f->len = len;
    return 0;
}

/* Where the text stands behind at most `front` bytes of lines of others; 0: nowhere. */
static size_t find_behind(const struct text_file *f, size_t front)
{
    struct stat st;
    char now[TEXT_MAX + 1];
    if (front == 0 || fstat(f->fd, &st) != 0 || st.st_size <= (off_t)f->len)
        return 0;
    size_t at = (size_t)st.st_size - f->len;
    bool same = at <= front &&
                pread(f->fd, now, f->len + 1, (off_t)at - 1) == (ssize_t)f->len + 1 &&
                now[0] == '\n' && memcmp(now + 1, f->text, f->len) == 0;
    return same ? at : 0;
}

/* Replaces the text if it is still ours. */
static int replace_text(struct text_file *f, size_t front, const char *text, size_t len)
{
    char now[TEXT_MAX + 1];
    ssize_t n = pread(f->fd, now, sizeof(now), 0);
    if (n < 0)
        return -1;
    if ((size_t)n == f->len && memcmp(now, f->text, f->len) == 0)
        return write_text(f, 0, text, len);
    size_t at = find_behind(f, front);
    return at > 0 ? write_text(f, at, text, len) : 0;
}

static int create_text(struct text_file *f, int dir, const char *name, mode_t mode)
{
    f->fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    return f->fd < 0 ? -1 : 0;
}

static char *append(char *to, const char *text)
{
    size_t n = strlen(text);
    memcpy(to, text, n);
    return to + n;
}

/* A number of at most 16 bits, without zeros in front. */
static char *append_number(char *to, unsigned number, unsigned base)
{
    char digits[8];
    unsigned n = 0;
    do
        digits[n++] = "0123456789abcdef"[number % base];
    while ((number /= base) > 0);
    while (n > 0)
        *to++ = digits[--n];
    return to;
}

/* Of IPv6 all eight groups: shorter is only nicer. */
static char *append_address(char *to, const uint8_t *address, bool v6)
{
    for (unsigned i = 0; i < (v6 ? 8 : 4); i++) {
        if (i > 0)
            *to++ = v6 ? ':' : '.';
        to = v6 ? append_number(to, (unsigned)(address[2 * i] << 8 | address[2 * i + 1]), 16)
                : append_number(to, address[i], 10);
    }
    return to;
}

/* The contents of hosts for this name: it is the card's IPv4 address, or the IPv6 one where that is
 * all there is, so that `--bind $(hostname -i)` has one word. */
static size_t hosts_text(char *to, const char *name)
{
    char *at = append(to, HOSTS_HEAD);
    bool v6 = !system_card_address(false);
    const uint8_t *own = system_card_address(v6);
    const uint8_t *gateway = system_card_gateway(v6);
    if (gateway)
        at = append(append_address(at, gateway, v6), HOSTS_GATEWAY);
    at = own ? append_address(at, own, v6) : append(at, "127.0.1.1");
    *at++ = '\t';
    at = append(at, name);
    *at++ = '\n';
    return (size_t)(at - to);
}

static size_t line_text(char *to, const char *line)
{
    size_t n = strlen(line);
    memcpy(to, line, n);
    to[n] = '\n';
    return n + 1;
}

static int draw_machine_id(void)
{
    uint8_t raw[16];
    char text[33];
    if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw))
        return -1;
    for (unsigned i = 0; i < 32; i++)
        text[i] = "0123456789abcdef"[raw[i / 2] >> (i % 2 ? 0 : 4) & 15];
    text[32] = '\n';
    return write_text(&machine_id_file, 0, text, sizeof(text));
}

int system_init(int etc, const char *hostname, const char **what)
{
    *what = "cannot open /dev/urandom";
    random_device = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (random_device < 0)
        return errno;
    struct utsname u;
    if (hostname[0] == 0) {
        *what = "cannot tell the host name";
        if (uname(&u) != 0)
            return errno;
        hostname = u.nodename;
    } else {
        *what = "cannot set the host name";
        if (sethostname(hostname, strlen(hostname)) != 0)
            return errno;
    }
    *what = "cannot make hosts, hostname, resolv.conf and machine-id";
    char text[TEXT_MAX];
    if (create_text(&resolver, etc, "resolv.conf", 0644) != 0 ||
        write_text(&resolver, 0, SM_WIRE_RESOLV_CONF, sizeof(SM_WIRE_RESOLV_CONF) - 1) != 0 ||
        create_text(&hosts, etc, "hosts", 0644) != 0 ||
        create_text(&hostname_file, etc, "hostname", 0644) != 0 ||
        create_text(&machine_id_file, etc, "machine-id", 0444) != 0 || draw_machine_id() != 0 ||
        write_text(&hosts, 0, text, hosts_text(text, hostname)) != 0 ||
        write_text(&hostname_file, 0, text, line_text(text, hostname)) != 0)
        return errno;
    return 0;
}

int system_set_clock(uint64_t realtime_ns, const char **what)
{
    struct timespec t = {
        .tv_sec = (time_t)(realtime_ns / 1000000000u),
        .tv_nsec = (long)(realtime_ns % 1000000000u),
    };
    *what = "cannot set the clock";
    return clock_settime(CLOCK_REALTIME, &t) == 0 ? 0 : errno;
}

int system_add_entropy(const void *seed, size_t len, const char **what)
{
    union {
        struct rand_pool_info info;
        uint8_t bytes[sizeof(struct rand_pool_info) + SM_WIRE_MAX_ENTROPY];
    } pool;

    *what = "the seed is too long";
    if (len > SM_WIRE_MAX_ENTROPY)
        return EINVAL;
    pool.info.entropy_count = (int)len * 8;
    pool.info.buf_size = (int)len;
    memcpy(pool.bytes + offsetof(struct rand_pool_info, buf), seed, len);
    *what = "cannot add entropy";
    if (ioctl(random_device, RNDADDENTROPY, &pool) != 0)
        return errno;
    *what = "cannot reseed the random number generator";
    return ioctl(random_device, RNDRESEEDCRNG) == 0 ? 0 : errno;
}

void system_keep_journal(void)
{
    journal_is_kept = true;
}

/* The directory is called by the id that it was made for, in a restore of a restore, too: a chain
 * of links would end at the kernel's bound of 40. */
static void link_journal(const char *dir, const char *old, const char *id)
{
    char first[SM_WIRE_MAX_MACHINE_ID + 1] = "";
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = readlinkat(fd, old, first, sizeof(first));
    bool is_link = n == SM_WIRE_MAX_MACHINE_ID;
    if (is_link)
        first[n] = 0;
    if (faccessat(fd, old, F_OK, 0) == 0)
        (void)symlinkat(is_link ? first : old, fd, id);
    close(fd);
}

/* journald goes on in the directory of the id that it was started with; journalctl looks for that
 * of today's. Where there can be no link the journal is still found by `journalctl -m`. */
static void keep_journal(const char *id)
{
    char old[SM_WIRE_MAX_MACHINE_ID + 1] = "";
    int fd = open("/etc/machine-id", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, old, SM_WIRE_MAX_MACHINE_ID);
    close(fd);
    if (n != SM_WIRE_MAX_MACHINE_ID || memchr(old, '/', sizeof(old)))
        return;
    link_journal("/run/log/journal", old, id);
    link_journal("/var/log/journal", old, id);
}

/* The file may have been replaced: then the one that is there now is the one to write. */
static int set_machine_id(const char *id)
{
    struct stat st;
    char text[SM_WIRE_MAX_MACHINE_ID + 1];
    size_t n = line_text(text, id);
    if (journal_is_kept)
        keep_journal(id);
    if (fstat(machine_id_file.fd, &st) != 0)
        return -1;
    if (st.st_nlink == 0) {
        int fd = open("/etc/machine-id", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0444);
        if (fd < 0)
            return -1;
        close(machine_id_file.fd);
        machine_id_file.fd = fd;
    } else {
        machine_id_file.len = (size_t)st.st_size; /* cuts what somebody appended */
    }
    return write_text(&machine_id_file, 0, text, n);
}

static int set_hostname(const char *name)
{
    char text[TEXT_MAX];
    return sethostname(name, strlen(name)) != 0 ||
                   replace_text(&hostname_file, 0, text, line_text(text, name)) != 0 ||
                   replace_text(&hosts, SYSTEM_HOSTS_MAX, text, hosts_text(text, name)) != 0
               ? -1
               : 0;
}

int system_set_identity(const char *hostname, const char *machine_id, const char **what)
{
    *what = "cannot set the machine id";
    if (machine_id[0] != 0 && set_machine_id(machine_id) != 0)
        return errno;
    *what = "cannot set the host name";
    if (hostname[0] != 0 && set_hostname(hostname) != 0)
        return errno;
    return 0;
}

int system_set_hosts(const char **what)
{
    struct utsname u;
    char text[TEXT_MAX];
    *what = "cannot write the card's address to hosts";
    return uname(&u) != 0 ||
                   replace_text(&hosts, SYSTEM_HOSTS_MAX, text, hosts_text(text, u.nodename)) != 0
               ? errno
               : 0;
}

int system_set_resolver(const char *text, const char **what)
{
    *what = "cannot set the name servers";
    return replace_text(&resolver, 0, text, strlen(text)) == 0 ? 0 : errno;
}
