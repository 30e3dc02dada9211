// The floor: the least that any container engine on this kernel has to do. A minimal program that
// makes the same system calls as littlebox's helper and nothing else: no protocol, no database, no
// HTTP, no checks. `make bench` builds it (gcc -O2 -static) and measures it beside littlebox.
//
//   floor life ROOT DIR COUNT [nonet] [full]  per container: "<ns to running> <ns whole life>"
//   floor rate ROOT DIR SECONDS WORKERS [...]        "<containers per second>"
//   floor exec PID COUNT PROGRAM [ARG...]            per exec: "<ns>" (setns, fork, exec, wait)
//   floor spawn COUNT PROGRAM [ARG...]               per process: "<ns>" (vfork, exec, wait)
//   floor clone COUNT                                per process: "<ns>" (clone3, exit, wait)
//   floor log FILE PROGRAM [ARG...]                  "<bytes> <lines> <ns>" (pipe, stamp per line, file)
//
// `nonet` shares the network namespace; `full` adds what a safe default adds: cgroup directories,
// masked and read-only paths, capabilities, no_new_privs; the program is ROOT's /bin/true.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_CGROUPS 16

struct container {
    const char *root, *dir;
    bool net, full;
    char base[256], upper[300], work[300], merged[300], overlay[1200];
    char cgroups[MAX_CGROUPS][300];
    int cgroup_tasks[MAX_CGROUPS];
    int cgroup_count, cgroup_v2;
};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(125);
}

#define MUST(call) do { if ((call) < 0) die(#call); } while (0)

// ---- inside the container ----------------------------------------------------------------------

static void loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0) die("lo");
    close(fd);
}

static void devices(void) {
    static const struct { const char *path; int major, minor; } nodes[] = {
        {"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7},
        {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0},
    };
    MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k"));
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        MUST(mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
    MUST(symlink("/proc/self/fd", "dev/fd"));
    MUST(symlink("/proc/self/fd/0", "dev/stdin"));
    MUST(symlink("/proc/self/fd/1", "dev/stdout"));
    MUST(symlink("/proc/self/fd/2", "dev/stderr"));
    MUST(symlink("pts/ptmx", "dev/ptmx"));
    MUST(mkdir("dev/pts", 0755));
    MUST(mkdir("dev/shm", 01777));
    MUST(mkdir("dev/mqueue", 01777));
    MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
    MUST(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k"));
    MUST(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
}

static void mask_paths(void) {
    static const char *files[] = {"proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list",
                                  "proc/sched_debug", "proc/interrupts"};
    static const char *dirs[] = {"proc/acpi", "proc/scsi", "sys/firmware", "sys/devices/virtual/powercap"};
    static const char *readonly[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (mount("dev/null", files[i], NULL, MS_BIND, NULL) < 0 && errno != ENOENT) die(files[i]);
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
        if (mount("tmpfs", dirs[i], "tmpfs", MS_RDONLY, "size=0") < 0 && errno != ENOENT) die(dirs[i]);
    for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++) {
        if (mount(readonly[i], readonly[i], NULL, MS_BIND, NULL) < 0) {
            if (errno == ENOENT) continue;
            die(readonly[i]);
        }
        MUST(mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    }
}

static void drop_privileges(void) {
    // chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service sys_chroot setfcap
    const uint64_t keep = 0x800405fbULL;
    for (int cap = 0; cap <= 40; cap++)
        if (!(keep >> cap & 1)) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{(uint32_t)keep, (uint32_t)keep, 0}, {0, 0, 0}};
    MUST(syscall(SYS_capset, &header, data));
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static void inside(const struct container *c) {
    // v1: one thread that writes to `tasks` costs no grace period, unlike cgroup.procs.
    for (int i = 0; i < c->cgroup_count; i++)
        if (c->cgroup_tasks[i] >= 0) MUST(write(c->cgroup_tasks[i], "0", 1));
    MUST(unshare(CLONE_NEWCGROUP));
    MUST(sethostname("floor", 5));
    if (c->net) loopback_up();
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    MUST(mount("overlay", c->merged, "overlay", 0, c->overlay));
    MUST(chdir(c->merged));
    MUST(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    devices();
    // sysfs shows the network namespace of its mounter: without a new one it needs a bind.
    if (c->net) MUST(mount("sysfs", "sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    else MUST(mount("/sys", "sys", NULL, MS_BIND, NULL));
    if (c->full) mask_paths();
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));
    MUST(setsid());
    if (c->full) drop_privileges();
    char *argv[] = {"true", NULL}, *envp[] = {"PATH=/bin", NULL};
    execve("/bin/true", argv, envp);
    die("execve");
}

// ---- around it ----------------------------------------------------------------------------------

static void make_cgroups(struct container *c, const char *name) {
    // What littlebox uses without limits: v1 hierarchies one by one and the v2 tree beside them, or
    // the v2 tree alone.
    static const char *v1[] = {"cpuacct", "memory", "pids"};
    bool pure = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
    char parent[64], file[340];
    for (size_t i = 0; i < sizeof v1 / sizeof *v1 && !pure; i++) {
        char *path = c->cgroups[c->cgroup_count];
        snprintf(path, sizeof c->cgroups[0], "/sys/fs/cgroup/%s/%s", v1[i], name);
        if (mkdir(path, 0755) < 0) continue;
        snprintf(file, sizeof file, "%s/tasks", path);
        c->cgroup_tasks[c->cgroup_count] = open(file, O_WRONLY | O_CLOEXEC);
        if (c->cgroup_tasks[c->cgroup_count++] < 0) die(file);
    }
    snprintf(parent, sizeof parent, "/sys/fs/cgroup%s", pure ? "" : "/unified");
    char *path = c->cgroups[c->cgroup_count];
    snprintf(path, sizeof c->cgroups[0], "%s/%s", parent, name);
    if (mkdir(path, 0755) == 0) {
        // Entered by CLONE_INTO_CGROUP.
        c->cgroup_v2 = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        c->cgroup_tasks[c->cgroup_count++] = -1;
    }
}

static void prepare(struct container *c, long number) {
    char name[64];
    snprintf(name, sizeof name, "littlebox-floor-%d-%ld", getpid(), number);
    snprintf(c->base, sizeof c->base, "%s/%s", c->dir, name);
    snprintf(c->upper, sizeof c->upper, "%s/upper", c->base);
    snprintf(c->work, sizeof c->work, "%s/work", c->base);
    snprintf(c->merged, sizeof c->merged, "%s/merged", c->base);
    snprintf(c->overlay, sizeof c->overlay, "lowerdir=%s,upperdir=%s,workdir=%s", c->root, c->upper, c->work);
    MUST(mkdir(c->base, 0700));
    MUST(mkdir(c->upper, 0755));
    MUST(mkdir(c->work, 0700));
    MUST(mkdir(c->merged, 0755));
    c->cgroup_count = 0;
    c->cgroup_v2 = -1;
    if (c->full) make_cgroups(c, name);
}

static void clean(struct container *c) {
    char inner[340];
    snprintf(inner, sizeof inner, "%s/work", c->work);
    rmdir(inner);
    rmdir(c->work);
    rmdir(c->upper);
    rmdir(c->merged);
    MUST(rmdir(c->base));
    for (int i = 0; i < c->cgroup_count; i++) {
        if (c->cgroup_tasks[i] >= 0) close(c->cgroup_tasks[i]);
        MUST(rmdir(c->cgroups[i]));
    }
    if (c->cgroup_v2 >= 0) close(c->cgroup_v2);
}

// One container from nothing to nothing.
static void life(struct container *c, long number, uint64_t *running, uint64_t *whole) {
    uint64_t start = now();
    int started[2];
    char byte;
    prepare(c, number);
    MUST(pipe2(started, O_CLOEXEC));
    struct clone_args args = {
        .flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWTIME | (c->net ? CLONE_NEWNET : 0),
        .exit_signal = SIGCHLD,
    };
    if (c->cgroup_v2 >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)c->cgroup_v2;
    }
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) die("clone3");
    if (pid == 0) inside(c);
    close(started[1]);
    // End of file: execve has closed the other end.
    if (read(started[0], &byte, 1) != 0) die("start");
    *running = now() - start;
    close(started[0]);
    int status;
    MUST(waitpid(pid, &status, 0));
    if (status != 0) { errno = ECHILD; die("the container failed"); }
    clean(c);
    *whole = now() - start;
}

static int mode_life(struct container *c, long count) {
    for (long i = 0; i < count; i++) {
        uint64_t running, whole;
        life(c, i, &running, &whole);
        printf("%lu %lu\n", running, whole);
    }
    return 0;
}

static int mode_rate(struct container *c, double seconds, int workers) {
    int results[2];
    MUST(pipe(results));
    for (int w = 0; w < workers; w++) {
        pid_t pid = fork();
        if (pid < 0) die("fork");
        if (pid > 0) continue;
        uint64_t end = now() + (uint64_t)(seconds * 1e9), a, b;
        long done = 0;
        while (now() < end) life(c, done++, &a, &b);
        MUST(write(results[1], &done, sizeof done));
        _exit(0);
    }
    long total = 0, one;
    uint64_t start = now();
    for (int w = 0; w < workers; w++) {
        if (read(results[0], &one, sizeof one) != sizeof one) die("worker");
        total += one;
    }
    double took = (double)(now() - start) / 1e9;
    while (wait(NULL) > 0) {}
    printf("%.2f\n", (double)total / took);
    return 0;
}

static int mode_exec(pid_t target, long count, char **argv) {
    int pidfd = (int)syscall(SYS_pidfd_open, target, 0);
    if (pidfd < 0) die("pidfd_open");
    for (long i = 0; i < count; i++) {
        uint64_t start = now();
        pid_t outer = fork();
        if (outer < 0) die("fork");
        if (outer == 0) {
            MUST(setns(pidfd, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP));
            // Only a child is in the PID namespace.
            pid_t inner = vfork();
            if (inner < 0) die("vfork");
            if (inner == 0) {
                char *envp[] = {"PATH=/bin:/usr/bin", NULL};
                execve(argv[0], argv, envp);
                _exit(127);
            }
            int status;
            MUST(waitpid(inner, &status, 0));
            _exit(WEXITSTATUS(status));
        }
        int status;
        MUST(waitpid(outer, &status, 0));
        if (status != 0) { errno = ECHILD; die("the exec failed"); }
        printf("%lu\n", now() - start);
    }
    return 0;
}

static int mode_spawn(long count, char **argv) {
    // vfork(2) may bring registers back as the child left them.
    for (volatile long i = 0; i < count; i++) {
        uint64_t start = now();
        pid_t pid = vfork();
        if (pid < 0) die("vfork");
        if (pid == 0) {
            int null = open("/dev/null", O_RDWR);
            dup2(null, 0), dup2(null, 1), dup2(null, 2);
            execv(argv[0], argv);
            _exit(127);
        }
        int status;
        MUST(waitpid(pid, &status, 0));
        if (WIFEXITED(status) && WEXITSTATUS(status) == 127) { errno = ENOENT; die(argv[0]); }
        printf("%lu\n", now() - start);
    }
    return 0;
}

static int mode_clone(long count) {
    for (long i = 0; i < count; i++) {
        int pidfd;
        struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD};
        uint64_t start = now();
        pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
        if (pid < 0) die("clone3");
        if (pid == 0) _exit(0);
        MUST(waitpid(pid, NULL, 0));
        close(pidfd);
        printf("%lu\n", now() - start);
    }
    return 0;
}

static int mode_log(const char *file, char **argv) {
    int out[2];
    MUST(pipe2(out, O_CLOEXEC));
    int log = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0) die(file);
    uint64_t start = now(), bytes = 0, lines = 0;
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid == 0) {
        dup2(out[1], 1);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(out[1]);
    static char in[65536], buffer[65536 * 12];
    ssize_t got;
    while ((got = read(out[0], in, sizeof in)) > 0) {
        size_t used = 0;
        char *at = in, *end = in + got;
        while (at < end) {
            char *newline = memchr(at, '\n', (size_t)(end - at));
            size_t length = (size_t)((newline ? newline : end) - at);
            struct timespec t;
            clock_gettime(CLOCK_REALTIME, &t);
            uint64_t stamp[2] = {length, (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec};
            memcpy(buffer + used, stamp, sizeof stamp);
            memcpy(buffer + used + sizeof stamp, at, length);
            used += sizeof stamp + length;
            at += length + (newline != NULL);
            lines += newline != NULL;
            // A record is at most 17 times its input (an empty line): leave room for the next.
            if (used > sizeof buffer - sizeof in - sizeof stamp) { MUST(write(log, buffer, used)); used = 0; }
        }
        MUST(write(log, buffer, used));
        bytes += (uint64_t)got;
    }
    MUST(waitpid(pid, NULL, 0));
    printf("%lu %lu %lu\n", bytes, lines, now() - start);
    return 0;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    const char *mode = argc > 1 ? argv[1] : "";
    bool is_life = !strcmp(mode, "life"), is_rate = !strcmp(mode, "rate");
    int status = 2;
    if ((is_life && argc >= 5) || (is_rate && argc >= 6)) {
        struct container c = {.root = argv[2], .dir = argv[3], .net = true};
        for (int i = is_life ? 5 : 6; i < argc; i++) {
            if (!strcmp(argv[i], "nonet")) c.net = false;
            if (!strcmp(argv[i], "full")) c.full = true;
        }
        status = is_life ? mode_life(&c, atol(argv[4])) : mode_rate(&c, atof(argv[4]), atoi(argv[5]));
    } else if (!strcmp(mode, "exec") && argc >= 5) {
        status = mode_exec(atoi(argv[2]), atol(argv[3]), argv + 4);
    } else if (!strcmp(mode, "spawn") && argc >= 4) {
        status = mode_spawn(atol(argv[2]), argv + 3);
    } else if (!strcmp(mode, "clone") && argc >= 3) {
        status = mode_clone(atol(argv[2]));
    } else if (!strcmp(mode, "log") && argc >= 4) {
        status = mode_log(argv[2], argv + 3);
    } else {
        fprintf(stderr, "usage: see the head of floor.c\n");
    }
    fflush(stdout);
    return status;
}
