/* A disk that takes its time: loaded before the C library (LD_PRELOAD), it makes every fsync and
 * fdatasync of a process wait first.  How long stands in the file CERTSTATUS_TEST_DISK, 8 octets,
 * microseconds, read anew each time, so that the harness slows a running installation.  SQLite's
 * and Python's own calls pass here alike; what they write still goes to the real file system. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *delay_us;

__attribute__((constructor)) static void find(void)
{
    const char *path = getenv("CERTSTATUS_TEST_DISK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *seen = mmap(NULL, sizeof *delay_us, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (seen != MAP_FAILED)
        delay_us = seen;
}

static void wait_first(void)
{
    int64_t left = delay_us ? *delay_us : 0;
    struct timespec span = { left / 1000000, left % 1000000 * 1000 };
    while (left > 0 && nanosleep(&span, &span) != 0)
        ;
}

int fsync(int file)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fsync");
    wait_first();
    return real(file);
}

int fdatasync(int file)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fdatasync");
    wait_first();
    return real(file);
}
