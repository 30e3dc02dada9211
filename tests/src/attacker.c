/* What hostile programs do inside a container, fast and without a libc of the image's.
 * Each command prints what it reached, and nothing else; `attacker.rs` compiles it statically. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/nsfs.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t ended;

static void end(int signal) {
    (void)signal;
    ended = 1;
}

/* Every open descriptor below 65536, e.g. "0 1 2". */
static int fds(void) {
    for (int fd = 0; fd < 65536; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("%d ", fd);
    puts("");
    return 0;
}

static int told(long result) {
    puts(result < 0 ? strerrorname_np(errno) : "done");
    return 0;
}

/* socket(2) through the 64-bit or the 32-bit entry of the kernel. */
static int make_socket(char **argv, int entry32) {
    long family = atol(argv[0]), type = atol(argv[1]), protocol = atol(argv[2]);
    if (!entry32)
        return told(socket(family, type, protocol));
#ifdef __x86_64__
    long result;
    /* __NR_socket of the 32-bit table. */
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(359L), "b"(family), "c"(type), "d"(protocol)
                     : "memory", "r8", "r9", "r10", "r11");
    if (result < 0) {
        errno = (int)-result;
        result = -1;
    }
    return told(result);
#else
    puts("ENOSYS");
    return 0;
#endif
}

/* Types into the terminal that this process has, as if somebody had. */
static int push_input(const char *text) {
    int tty = open("/dev/tty", O_RDWR);
    if (tty < 0)
        return told(-1);
    for (; *text; text++)
        if (ioctl(tty, TIOCSTI, text) < 0)
            return told(-1);
    return told(0);
}

/* TIOCLINUX: paste the console's selection. */
static int paste(void) {
    char subcode = 3;
    int tty = open("/dev/tty", O_RDWR);
    return told(tty < 0 ? -1 : ioctl(tty, TIOCLINUX, &subcode));
}

/* Exchanges two names until it is told to end; prints how often. */
static int exchange(const char *a, const char *b) {
    unsigned long swaps = 0;
    puts("ready");
    fflush(stdout);
    while (!ended) {
        if (syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2 /* RENAME_EXCHANGE */) < 0) {
            perror("renameat2");
            return 1;
        }
        swaps++;
    }
    printf("%lu\n", swaps);
    return 0;
}

/* Makes so many directories inside one another. */
static int dig(const char *top, long levels) {
    if (mkdir(top, 0755) < 0 || chdir(top) < 0)
        return told(-1);
    for (; levels > 0; levels--)
        if (mkdir("d", 0755) < 0 || chdir("d") < 0)
            return told(-1);
    return told(0);
}

/* Makes so many names in one directory. */
static int fill(const char *top, long names) {
    char name[32];
    if (mkdir(top, 0755) < 0 || chdir(top) < 0)
        return told(-1);
    for (; names > 0; names--) {
        snprintf(name, sizeof name, "name-%ld", names);
        if (symlink("x", name) < 0)
            return told(-1);
    }
    return told(0);
}

struct hunt {
    unsigned long processes, refused, seen, attached, written, changed, canary;
};

/* Whether a program is the engine's: the one of the OCI command line is a mount of its own, "/". */
static int is_engines(const char *exe) {
    return strstr(exe, "helper") || !strcmp(exe, "/");
}

/* One look at a process that is on its way into this container. */
static int look(int pid, const char *canary, struct hunt *hunt) {
    char path[4096], exe[256];
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    ssize_t len = readlink(path, exe, sizeof exe - 1);
    if (len < 0) {
        if (errno == EACCES || errno == EPERM)
            hunt->refused++;
        return errno != ENOENT && errno != ESRCH;
    }
    exe[len] = 0;
    if (!is_engines(exe))
        return 0;
    hunt->seen++;
    int fd = open(path, O_PATH);
    if (fd >= 0) {
        char magic[64];
        snprintf(magic, sizeof magic, "/proc/self/fd/%d", fd);
        /* The execve may have come in between: the program is not what is hunted. */
        len = readlink(magic, exe, sizeof exe - 1);
        exe[len < 0 ? 0 : len] = 0;
        if (is_engines(exe)) {
            int writable = open(magic, O_WRONLY);
            if (writable >= 0) {
                hunt->written += write(writable, "x", 1) == 1;
                close(writable);
            }
            hunt->changed += chmod(magic, 0) == 0;
        }
        close(fd);
    }
    snprintf(path, sizeof path, "/proc/%d/root%s", pid, canary);
    fd = open(path, O_RDONLY);
    if (fd >= 0) {
        hunt->canary++;
        close(fd);
    }
    for (int n = 3; n < 24; n++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d/../../../../../../..%s", pid, n, canary);
        fd = open(path, O_RDONLY);
        if (fd >= 0) {
            hunt->canary++;
            close(fd);
        }
    }
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
        hunt->attached++;
        ptrace(PTRACE_INTERRUPT, pid, 0, 0);
        waitpid(pid, 0, __WALL);
        ptrace(PTRACE_DETACH, pid, 0, 0);
    }
    return 1;
}

/* The PID given last in this PID namespace (proc_loadavg(5)). */
static int last_pid(void) {
    char text[128] = "";
    int fd = open("/proc/loadavg", O_RDONLY);
    if (read(fd, text, sizeof text - 1) < 0)
        perror("loadavg");
    close(fd);
    char *last = strrchr(text, ' ');
    return last ? atoi(last) : 0;
}

/* Waits for each new process and looks into it from its first moment to its execve. */
static int hunt(const char *canary) {
    struct hunt hunt = {0};
    int next = getpid() + 1;
    puts("ready");
    fflush(stdout);
    while (!ended) {
        if (kill(next, 0) < 0 && errno == ESRCH) {
            /* Not there yet, or missed: then on with the newest. */
            int last = last_pid();
            if (last > next)
                next = last;
            continue;
        }
        hunt.processes++;
        while (!ended && look(next, canary, &hunt)) {
        }
        next++;
    }
    printf("{\"processes\": %lu, \"refused\": %lu, \"seen\": %lu, \"attached\": %lu, "
           "\"written\": %lu, \"changed\": %lu, \"canary\": %lu}\n",
           hunt.processes, hunt.refused, hunt.seen, hunt.attached, hunt.written, hunt.changed,
           hunt.canary);
    return 0;
}

static int take_inotify(void) {
    return inotify_init1(IN_CLOEXEC) >= 0;
}

static int take_queue(const char *name) {
    struct mq_attr attr = {.mq_maxmsg = 10, .mq_msgsize = 8192};
    return mq_open(name, O_CREAT | O_RDWR, 0600, &attr) >= 0;
}

static int take_timer(void) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    return timer_create(CLOCK_MONOTONIC, &event, &timer) == 0;
}

/* Takes what the kernel counts per user, at most so many of each (0: all), and keeps it. */
static int hoard(unsigned long most) {
    unsigned long instances = 0, queues = 0, timers = 0;
    char name[32];
    while ((!most || instances < most) && take_inotify())
        instances++;
    for (; !most || queues < most; queues++) {
        snprintf(name, sizeof name, "/hoard%lu", queues);
        if (!take_queue(name))
            break;
    }
    while ((!most || timers < most) && take_timer())
        timers++;
    printf("{\"inotify\": %lu, \"queues\": %lu, \"timers\": %lu}\nready\n", instances, queues,
           timers);
    fflush(stdout);
    while (!ended)
        pause();
    return 0;
}

/* Takes one of each, with these limits of its own (0: as they are); prints what it could have. */
static int need(rlim_t queue_bytes, rlim_t pending) {
    struct rlimit queues = {queue_bytes, queue_bytes}, signals = {pending, pending};
    if ((queue_bytes && setrlimit(RLIMIT_MSGQUEUE, &queues) < 0) ||
        (pending && setrlimit(RLIMIT_SIGPENDING, &signals) < 0)) {
        perror("setrlimit");
        return 1;
    }
    char name[64];
    snprintf(name, sizeof name, "/lbt-need-%d", getpid());
    if (take_inotify())
        printf("inotify ");
    if (take_queue(name))
        printf("queue ");
    mq_unlink(name);
    puts(take_timer() ? "timer" : "");
    return 0;
}

/* The host id of who has made a user namespace: whose account its counts are charged to. */
static int owner(const char *path) {
    uid_t uid;
    if (ioctl(open(path, O_RDONLY), NS_GET_OWNER_UID, &uid) < 0) {
        perror(path);
        return 1;
    }
    printf("%u\n", uid);
    return 0;
}

enum { PAGE = 4096, THE_FILE = 2 };

static struct fuse_attr attributes(uint64_t node) {
    return (struct fuse_attr){
        .ino = node,
        .size = PAGE,
        .nlink = 1,
        .mode = node == THE_FILE ? S_IFREG | 0666 : S_IFDIR | 0777,
    };
}

/* Answers a FUSE request; returns 0 for the one that is never answered. */
static int serve(int fuse, uint32_t unanswered) {
    static char request[1 << 20], answer[sizeof(struct fuse_out_header) + PAGE];
    if (read(fuse, request, sizeof request) < 0)
        return errno == EINTR || errno == ENOENT;
    struct fuse_in_header *in = (void *)request;
    struct fuse_out_header *out = (void *)answer;
    char *body = answer + sizeof *out;
    memset(answer, 0, sizeof answer);
    *out = (struct fuse_out_header){.len = sizeof *out, .unique = in->unique};
    if (in->opcode == unanswered)
        return 0;
    switch (in->opcode) {
    case FUSE_FORGET:
        return 1;
    case FUSE_INIT:
        *(struct fuse_init_out *)body = (struct fuse_init_out){
            .major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = PAGE};
        out->len += sizeof(struct fuse_init_out);
        break;
    case FUSE_LOOKUP:
        *(struct fuse_entry_out *)body =
            (struct fuse_entry_out){.nodeid = THE_FILE, .attr = attributes(THE_FILE)};
        out->len += sizeof(struct fuse_entry_out);
        break;
    case FUSE_GETATTR:
        *(struct fuse_attr_out *)body = (struct fuse_attr_out){.attr = attributes(in->nodeid)};
        out->len += sizeof(struct fuse_attr_out);
        break;
    case FUSE_OPEN:
        out->len += sizeof(struct fuse_open_out);
        break;
    case FUSE_READ:
        out->len += PAGE;
        break;
    default:
        out->error = -ENOSYS;
    }
    return write(fuse, answer, out->len) > 0;
}

/* Replaces the mapping of a file that must be written back first, with the memory map locked. */
static int lock_own_map(const char *path) {
    int fd = open(path, O_RDWR);
    char *page = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return perror(path), 1;
    page[0] = 1;
    mmap(page, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return 1;
}

static int mount_fuse(const char *directory) {
    char options[64];
    int fuse = open("/dev/fuse", O_RDWR);
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
    return mount("fuse", directory, "fuse", 0, options) ? -1 : fuse;
}

/* Makes so many processes whose memory maps are locked for good, and prints "done". Takes
 * CAP_SYS_ADMIN and /dev/fuse. */
static int lock_maps(const char *directory, long processes) {
    char file[4096];
    snprintf(file, sizeof file, "%s/file", directory);
    for (; processes > 0; processes--) {
        int fuse = mount_fuse(directory);
        if (fuse < 0)
            return perror(directory), 1;
        if (!fork()) {
            /* Or it could not even be killed: its own end would have to close this. */
            close_range(3, ~0U, 0);
            _exit(lock_own_map(file));
        }
        while (serve(fuse, FUSE_WRITE))
            ;
    }
    puts("done");
    fflush(stdout);
    pause();
    return 0;
}

/* A page that cannot be read: of this file. */
static char *dead_page(const char *path) {
    int file = open(path, O_RDONLY);
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    return file < 0 || page == MAP_FAILED ? NULL : page;
}

/* Leaves a child that is stuck in a write to the terminal: from memory on a file that cannot be read.
   The terminal is given up first: the end of its session would wait for the same. */
static int hold_terminal(const char *path) {
    char *page = dead_page(path);
    signal(SIGHUP, SIG_IGN);
    if (!page || ioctl(0, TIOCNOTTY))
        return told(-1);
    if (!fork())
        _exit(write(1, page, 1) != 1);
    sleep(1);
    return 0;
}

/* Reads its input into a page that cannot be read, and so keeps the pipe locked. */
static int hold_input(const char *path) {
    char *page = dead_page(path);
    return page ? read(0, page, 1) != 1 : told(-1);
}

/* Writes to its output from a page that cannot be read, and so keeps the pipe locked. Takes
 * CAP_SYS_ADMIN and /dev/fuse. */
static int hold_output(const char *directory) {
    char file[4096];
    snprintf(file, sizeof file, "%s/file", directory);
    int fuse = mount_fuse(directory);
    if (fuse < 0)
        return perror(directory), 1;
    if (!fork()) {
        while (serve(fuse, FUSE_READ))
            ;
        pause();
    }
    close(fuse);
    char ordinary[PAGE] = "output", *dead = dead_page(file);
    struct iovec parts[] = {{ordinary, PAGE}, {dead, 1}};
    return dead ? writev(1, parts, 2) < 0 : told(-1);
}

int main(int argc, char **argv) {
    signal(SIGTERM, end);
    if (argc == 2 && !strcmp(argv[1], "fds"))
        return fds();
    if (argc == 5 && !strcmp(argv[1], "socket"))
        return make_socket(argv + 2, 0);
    if (argc == 5 && !strcmp(argv[1], "socket32"))
        return make_socket(argv + 2, 1);
    if (argc == 3 && !strcmp(argv[1], "push-input"))
        return push_input(argv[2]);
    if (argc == 2 && !strcmp(argv[1], "paste"))
        return paste();
    if (argc == 4 && !strcmp(argv[1], "exchange"))
        return exchange(argv[2], argv[3]);
    if (argc == 4 && !strcmp(argv[1], "dig"))
        return dig(argv[2], atol(argv[3]));
    if (argc == 4 && !strcmp(argv[1], "fill"))
        return fill(argv[2], atol(argv[3]));
    if (argc == 3 && !strcmp(argv[1], "hunt"))
        return hunt(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "hold-terminal"))
        return hold_terminal(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "hold-input"))
        return hold_input(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "hold-output"))
        return hold_output(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "hoard"))
        return hoard(strtoul(argv[2], 0, 10));
    if (argc == 4 && !strcmp(argv[1], "need"))
        return need(strtoul(argv[2], 0, 10), strtoul(argv[3], 0, 10));
    if (argc == 3 && !strcmp(argv[1], "owner"))
        return owner(argv[2]);
    if (argc == 4 && !strcmp(argv[1], "lock-maps"))
        return lock_maps(argv[2], atol(argv[3]));
    fputs("unknown command\n", stderr);
    return 2;
}
