"""Numbers of the system calls that a sandboxed program may make, on x86-64 and on aarch64 (the kernel's unistd.h); "-": has none there.

A list of what is allowed: a call that the kernel gains tomorrow is refused until it is written here.
"""

MACHINES = ("x86_64", "aarch64")

READING = """
    read:0/63 readv:19/65 pread64:17/67 preadv:295/69 preadv2:327/286 lseek:8/62 close:3/57 close_range:436/436 fstat:5/80 stat:4/-
    lstat:6/- newfstatat:262/79 statx:332/291 statfs:137/43 fstatfs:138/44 open:2/- openat:257/56 access:21/- faccessat:269/48
    faccessat2:439/439 readlink:89/- readlinkat:267/78 getdents:78/- getdents64:217/61 getcwd:79/17 chdir:80/49 fchdir:81/50 flock:73/32
    dup:32/23 dup2:33/- dup3:292/24 pipe:22/- pipe2:293/59 poll:7/- ppoll:271/73 select:23/- pselect6:270/72 epoll_create:213/-
    epoll_create1:291/20 epoll_ctl:233/21 epoll_wait:232/- epoll_pwait:281/22 eventfd:284/- eventfd2:290/19 fadvise64:221/223
    umask:95/166
"""
"""Opening (the file system decides what), reading, waiting."""
WRITING = """
    write:1/64 writev:20/66 pwrite64:18/68 pwritev:296/70 pwritev2:328/287 ftruncate:77/46 fallocate:285/47 fsync:74/82 fdatasync:75/83
    sendfile:40/71 copy_file_range:326/285 sendto:44/206 recvfrom:45/207 shutdown:48/210 getsockname:51/204 getpeername:52/205
    getsockopt:55/209
"""
"""To what is open. Sockets exist only as pairs of the program's own."""
MEMORY = """
    brk:12/214 mmap:9/222 munmap:11/215 mremap:25/216 mprotect:10/226 madvise:28/233 mincore:27/232 msync:26/227 membarrier:324/283
    rseq:334/293
"""
TIME = """
    nanosleep:35/101 clock_nanosleep:230/115 clock_gettime:228/113 clock_getres:229/114 gettimeofday:96/169 time:201/- times:100/153
    alarm:37/- setitimer:38/103 getitimer:36/102 pause:34/- restart_syscall:219/128
"""
THREADS = """
    exit:60/93 exit_group:231/94 wait4:61/260 waitid:247/95 set_tid_address:218/96 set_robust_list:273/99 get_robust_list:274/100
    futex:202/98 sched_yield:24/124 sched_getaffinity:204/123 sched_getparam:143/121 sched_getscheduler:145/120 arch_prctl:158/-
    getrlimit:97/163 setrlimit:160/164 getrusage:98/165 sysinfo:99/179 uname:63/160 getcpu:309/168 getrandom:318/278 getpriority:140/141
"""
IDENTITY = """
    getpid:39/172 getppid:110/173 gettid:186/178 getuid:102/174 geteuid:107/175 getgid:104/176 getegid:108/177 getresuid:118/148
    getresgid:120/150 getgroups:115/158 getpgid:121/155 getpgrp:111/- getsid:124/156 setsid:112/157 setpgid:109/154 capget:125/90
"""
SIGNALS = """
    rt_sigaction:13/134 rt_sigprocmask:14/135 rt_sigreturn:15/139 rt_sigpending:127/136 rt_sigtimedwait:128/137 rt_sigsuspend:130/133
    sigaltstack:131/132
"""
PATHS = """
    creat:85/- mkdir:83/- mkdirat:258/34 rmdir:84/- unlink:87/- unlinkat:263/35 rename:82/- renameat:264/38 renameat2:316/276 link:86/-
    linkat:265/37 symlink:88/- symlinkat:266/36 truncate:76/45 chmod:90/- fchmod:91/52 fchmodat:268/53 utime:132/- utimes:235/-
    utimensat:280/88 futimesat:261/-
"""
"""Changing what a path names or what is known of it."""
PROCESSES = """
    fork:57/- vfork:58/-
"""
"""Beside clone, which is ruled."""
RULED = """
    fcntl:72/25 clone:56/220 clone3:435/435 prctl:157/167 prlimit64:302/261 ioctl:16/29 socketpair:53/199 kill:62/129 tkill:200/130
    tgkill:234/131
"""
"""Allowed for some arguments only; seccomp.py says which."""


def numbers(group: str, machine: str) -> dict[str, int]:
    """Name -> number of a group's calls on a machine, one of MACHINES."""
    entries = (entry.partition(":") for entry in group.split())
    found = {name: both.split("/")[MACHINES.index(machine)] for name, _, both in entries}
    return {name: int(number) for name, number in found.items() if number != "-"}
