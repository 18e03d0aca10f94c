/* The start of a machine in its process. See machine.h.
 *
 * System calls: fcntl(F_DUPFD_CLOEXEC), madvise(MADV_POPULATE_WRITE). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/mman.h>

#include "devices/vsock/vsock.h"
#include "hypervisor/hypervisor.h"
#include "monitor/lost_file.h"
#include "monitor/machine_host.h"
#include "net/socket_backend.h"
#include "net/unplugged.h"
#include "snapshot/reader.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "vmm/usual_parts.h"

enum { CMDLINE, KERNEL, INITRAMFS, ROOTFS, SNAPSHOT }; /* the texts of a start */

/* Takes the descriptors and texts out of the message. */
static int read_start(struct machine_host *h, struct sm_machine_message *m, sm_error *err)
{
    const struct sm_machine_shape *s = &m->request.start;
    unsigned next = 0;
    size_t runs = s->n_written * sizeof(struct sm_machine_run);
    for (unsigned i = 0; i < SM_START_N_FDS; i++) {
        if (s->has & 1u << i && next < m->n_fds)
            h->fds[i] = sm_steal_fd(&m->fds[next++]);
    }
    if (m->request.call != SM_CALL_START || next != m->n_fds || h->fds[SM_START_KVM] < 0 ||
        h->fds[SM_START_ROOTFS] < 0 || s->n_written > SM_RECORD_MAX ||
        !sm_machine_texts(m, runs, h->names, SM_START_TEXTS))
        return sm_error_set(err, SM_EPROTOCOL, "a machine cannot start with what it was given");
    return 0;
}

/* Files are known by the names that they came with. */
static int open_given(void *arg, const char *path)
{
    struct machine_host *h = arg;
    static const struct {
        unsigned name, fd;
    } files[] = {
        {ROOTFS, SM_START_ROOTFS}, {KERNEL, SM_START_KERNEL}, {INITRAMFS, SM_START_INITRAMFS}};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (h->names[files[i].name] == path || strcmp(h->names[files[i].name], path) == 0)
            return fcntl(h->fds[files[i].fd], F_DUPFD_CLOEXEC, 0);
    }
    errno = ENOENT;
    return -1;
}

/* What the card is plugged into (sm_part_plug_fn). */
static int plug(void *arg, struct sm_loop *loop, struct sm_net_backend **backend, sm_error *err)
{
    struct machine_host *h = arg;
    int fd = h->fds[SM_START_CARD];
    if (fd < 0)
        return sm_net_unplugged(NULL, loop, backend, err);
    int rc = sm_socket_backend_create(loop, fd, h->speaks_first, &h->backend, err);
    if (rc)
        return rc;
    sm_steal_fd(&h->fds[SM_START_CARD]);
    *backend = h->backend;
    return 0;
}

static int create(struct machine_host *h, const struct sm_machine_shape *s,
    const struct sm_snapshot *snapshot, sm_error *err)
{
    struct sm_machine_part parts[SM_USUAL_PARTS];
    const struct sm_machine_part net = sm_part_net(plug, h, s->mac);
    sm_usual_parts(parts, h->names[ROOTFS], &net);
    const struct sm_machine_config config = {
        .memory_bytes = s->memory_bytes,
        .vcpus = s->vcpus,
        .kernel = h->names[KERNEL],
        .initramfs = *h->names[INITRAMFS] ? h->names[INITRAMFS] : NULL,
        .cmdline = *h->names[CMDLINE] ? h->names[CMDLINE] : NULL,
        .parts = parts,
        .n_parts = SM_USUAL_PARTS,
        .count_instructions = s->count_instructions,
        .hv = h->hv,
        .snapshot = snapshot,
        .snapshot_fd = h->fds[SM_START_SNAPSHOT],
        .snapshot_name = snapshot ? h->names[SNAPSHOT] : NULL,
        .open = open_given,
        .open_arg = h,
        .page_sources = &h->page_sources,
        .vcpu_begins = sm_machine_host_tighten_vcpu,
    };
    int rc = sm_machine_create(&h->machine, &config, err);
    if (!rc)
        sm_lost_file_of(h->machine);
    return rc ? rc : sm_machine_host_open_streams(h, err);
}

static int boot(struct machine_host *h, const struct sm_machine_shape *s, sm_error *err)
{
    int rc = create(h, s, NULL, err);
    if (!rc)
        rc = sm_machine_load_kernel(h->machine, err);
    if (!rc)
        rc = sm_machine_host_tighten(h, err);
    return rc ? rc : sm_machine_start(h->machine, err);
}

/* Pages that the guest is going to write soon become its own. A kernel that cannot do it (before
 * Linux 5.14) says so, and nothing is lost. */
static void make_own(struct machine_host *h, const struct sm_machine_run *runs, uint32_t n)
{
    struct sm_ram ram;
    sm_machine_ram(h->machine, &ram);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t at = (uint64_t)runs[i].page * SM_SNAPSHOT_PAGE;
        uint64_t bytes = (uint64_t)runs[i].n_pages * SM_SNAPSHOT_PAGE;
        if (at >= ram.bytes || bytes > ram.bytes - at ||
            madvise((uint8_t *)(uintptr_t)ram.base + at, bytes, MADV_POPULATE_WRITE))
            return;
    }
}

static int restore(struct machine_host *h, const struct sm_machine_message *m, sm_error *err)
{
    const struct sm_machine_shape *s = &m->request.start;
    const char *path = h->names[SNAPSHOT];
    int fd = h->fds[SM_START_SNAPSHOT];
    auto_snapshot snapshot = NULL;
    int rc = sm_snapshot_load_meta(fd, path, &snapshot, err);
    if (!rc)
        rc = create(h, s, snapshot, err);
    if (rc)
        return rc;
    rc = sm_machine_load(h->machine, fd, snapshot, &h->times, err);
    if (rc)
        return sm_error_prefix(err, rc, "cannot restore the snapshot '%s'", path);
    make_own(h, (const void *)m->body, s->n_written);
    rc = sm_machine_host_tighten(h, err);
    return rc ? rc : sm_machine_start(h->machine, err);
}

int sm_machine_host_start(struct machine_host *h, struct sm_machine_message *m, sm_error *err)
{
    int rc = read_start(h, m, err);
    h->speaks_first = m->request.start.speaks_first;
    if (!rc)
        rc = sm_machine_host_confine(h, &m->request.start, err);
    if (!rc)
        rc = sm_hv_adopt(sm_steal_fd(&h->fds[SM_START_KVM]), &h->hv, err);
    if (!rc)
        rc = h->fds[SM_START_SNAPSHOT] >= 0 ? restore(h, m, err) : boot(h, &m->request.start, err);
    for (unsigned i = 0; i < SM_START_N_FDS; i++) {
        if (i != SM_START_AGENT)
            sm_close(sm_steal_fd(&h->fds[i]));
    }
    return rc;
}
