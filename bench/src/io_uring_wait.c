/* Lets a process that sleeps in io_uring_enter run under valgrind; `ostrakon-bench instructions` compiles
 * and preloads it.
 *
 * Valgrind 3.19 runs one thread at a time. A thread hands its turn on before a system call that may block,
 * and valgrind does not count io_uring_enter among those: a thread that sleeps in it keeps all others from
 * running, and when it waits for one of them, for ever. So the sleep is moved into poll() on the ring,
 * which valgrind knows to block, and which returns when the ring has a completion. Then io_uring_enter
 * itself doesn't sleep.
 *
 * A sleep ends after SLEEP_MS at the latest, as if a signal had come. glommio 0.9.0 can go to sleep over
 * tasks that could run, when its time slice is over before the first of them; valgrind, fifty times
 * slower, makes that likely.
 *
 * liburing, as glommio builds it, makes its system calls by the function syscall() of libc, which this one
 * replaces. All else goes through unchanged.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stddef.h>
#include <sys/syscall.h>

#define SLEEP_MS 200

typedef long (*syscall_function)(long number, long a, long b, long c, long d, long e, long f);

static syscall_function next_syscall;

__attribute__((constructor)) static void find_next_syscall(void) {
    next_syscall = (syscall_function)dlsym(RTLD_NEXT, "syscall");
}

static long enter(long ring, long to_submit, long min_complete, long flags, long mask, long mask_bytes) {
    long submitted = 0;
    if (to_submit > 0) {
        long no_wait = flags & ~(long)IORING_ENTER_GETEVENTS;
        submitted = next_syscall(SYS_io_uring_enter, ring, to_submit, 0, no_wait, mask, mask_bytes);
        if (submitted < 0) {
            return submitted;
        }
    }
    struct pollfd completions = {.fd = (int)ring, .events = POLLIN};
    int ready = poll(&completions, 1, SLEEP_MS);
    if (ready <= 0) {
        if (ready == 0) {
            errno = EINTR;
        }
        return to_submit > 0 ? submitted : -1;
    }
    long result = next_syscall(SYS_io_uring_enter, ring, 0, min_complete, flags, mask, mask_bytes);
    return result < 0 && to_submit == 0 ? result : submitted;
}

long syscall(long number, long a, long b, long c, long d, long e, long f) {
    if (next_syscall == NULL) {
        find_next_syscall();
    }
    if (number == SYS_io_uring_enter && c > 0 && (d & IORING_ENTER_GETEVENTS)) {
        return enter(a, b, c, d, e, f);
    }
    return next_syscall(number, a, b, c, d, e, f);
}
