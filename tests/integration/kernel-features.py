# Runs in a Debian guest: what ordinary programs ask of a kernel must be there, what parts its users from it, too. Prints what is
# missing, one a line.
import ctypes, errno, os, socket, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
missing = []

def syscall(name, nr, *args):
    """The call may fail, but not because the kernel does not know it."""
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(nr), *map(ctypes.c_long, args)) < 0 and ctypes.get_errno() == errno.ENOSYS:
        missing.append("system call " + name)

# x86_64 numbers, arguments that do no harm.
for name, nr, *args in [
    ("shmget", 29, 0, 4096, 0), ("semget", 64, 0, 1, 0), ("msgget", 68, 0, 0), ("io_setup", 206, 0, 0),
    ("mq_open", 240, 0, 0), ("add_key", 248, 0, 0), ("keyctl", 250, 0, 0), ("inotify_init1", 294, 0),
    ("signalfd4", 289, -1, 0, 8, 0), ("timerfd_create", 283, 1, 0), ("timer_create", 222, 1, 0, 0), ("eventfd2", 290, 0, 0),
    ("epoll_create1", 291, 0), ("fanotify_init", 300, 0, 0), ("name_to_handle_at", 303, -1, 0, 0), ("setns", 308, -1, 0),
    ("process_vm_readv", 310, 0, 0), ("kcmp", 312, 0, 0, 0), ("seccomp", 317, 0, 0, 1), ("getrandom", 318, 0, 0, 0),
    ("memfd_create", 319, 0, 0), ("bpf", 321, -1, 0, 0), ("userfaultfd", 323, 0), ("membarrier", 324, 0, 0),
    ("statx", 332, -1, 0, 0), ("rseq", 334, 0, 0, 0), ("pidfd_send_signal", 424, -1, 0, 0), ("io_uring_setup", 425, 0, 0),
    ("pidfd_open", 434, 0, 0), ("clone3", 435, 0, 0), ("openat2", 437, -1, 0, 0), ("epoll_pwait2", 441, -1, 0, 0),
    ("futex_waitv", 449, 0, 0), ("fchmodat2", 452, -1, 0, 0)]:
    syscall(name, nr, *args)

def expect(what, ok):
    if not ok:
        missing.append(what)

def opens(what, *args):
    try:
        socket.socket(*args).close()
    except OSError as e:
        missing.append("%s socket: %s" % (what, e.strerror))

opens("unix", socket.AF_UNIX, socket.SOCK_SEQPACKET)
opens("IPv6", socket.AF_INET6, socket.SOCK_STREAM)
opens("packet", socket.AF_PACKET, socket.SOCK_RAW)
opens("raw", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
opens("route netlink", socket.AF_NETLINK, socket.SOCK_RAW, 0)
opens("diag netlink", socket.AF_NETLINK, socket.SOCK_RAW, 4)
opens("vsock", 40, socket.SOCK_STREAM)

filesystems = open("/proc/filesystems").read().split()
for name in "ext4 overlay tmpfs proc sysfs devpts devtmpfs cgroup2 mqueue binfmt_misc ramfs bpf".split():
    expect("file system " + name, name in filesystems)
for name in "cgroup ipc mnt net pid time user uts".split():
    expect("namespace " + name, os.path.exists("/proc/self/ns/" + name))
for path in "/proc/sys/kernel/random/uuid /proc/self/smaps /proc/sys/net/ipv6/conf/lo /proc/sys/fs/inotify".split():
    expect(path, os.path.exists(path))
expect("more than 0 legacy terminals", not os.path.exists("/dev/ptyp0"))
expect("no 8250 port", not os.path.exists("/dev/ttyS0"))
os.setxattr("/tmp", "user.sm-test", b"1")
expect("xattr on the root", os.getxattr("/tmp", "user.sm-test") == b"1")
open("/dev/shm/sm-acl", "w").close()
expect("xattr of /dev/shm", os.setxattr("/dev/shm/sm-acl", "trusted.sm-test", b"1") is None)

# What separates a guest's users from its kernel.
def refuses(what, error, call):
    try:
        call()
        missing.append("no " + what)
    except OSError as e:
        expect("no %s, but: %s" % (what, e.strerror), e.errno == error)

expect("bpf(2) is root's", open("/proc/sys/kernel/unprivileged_bpf_disabled").read().strip() == "2")
refuses("memory of the kernel in /dev/mem", errno.EPERM, lambda: os.pread(os.open("/dev/mem", os.O_RDONLY), 16, 16 << 20))
# Port 1024 is the agent's: with a transport within the guest this would reach it.
refuses("vsock within the guest", errno.ECONNRESET, lambda: socket.socket(40, socket.SOCK_STREAM).connect((1, 1024)))

print("\n".join(missing))
sys.exit(1 if missing else 0)
