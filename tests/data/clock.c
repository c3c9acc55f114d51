// A server's clock, as a test sets it. The file that CLOCK names has three numbers of 64 bits, in
// microseconds: by how much the clock is off, in which steps it goes, and, unless it is 0, where it stands still.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

static volatile int64_t *setting(void) {
    static volatile int64_t *known;
    const char *path = getenv("CLOCK");
    if (known == NULL && path != NULL) {
        int file = open(path, O_RDONLY);
        void *map = mmap(NULL, 3 * sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
        close(file);
        if (map != MAP_FAILED) known = map;
    }
    return known;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(time, zone);
    volatile int64_t *set = setting();
    if (set != NULL) {
        int64_t micros = (int64_t)time->tv_sec * 1000000 + time->tv_usec + set[0];
        if (set[1] > 0) micros -= micros % set[1];
        if (set[2] != 0) micros = set[2];
        time->tv_sec = micros / 1000000;
        time->tv_usec = micros % 1000000;
    }
    return result;
}
