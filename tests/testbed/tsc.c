/*
 * Prints the frequency of this machine's time stamp counter, in kHz.
 *
 * QEMU gives the nested machine this counter, and its kernel would learn the frequency from an
 * emulated timer while it boots. A busy host takes the CPU away in between: then the kernel
 * believes several times too little or too much for as long as it runs, and every second in it is
 * that much shorter or longer. Here a reading that was interrupted is not used.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct reading {
    int64_t ns;
    uint64_t ticks;
    int64_t within; /* ns that both took: how far they can be apart */
};

static int64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* The counter and the clock at one moment: of many readings the one that took least. */
static struct reading read_both(void)
{
    struct reading best = {.within = INT64_MAX};
    for (int i = 0; i < 1000; i++) {
        int64_t before = clock_ns();
        uint64_t ticks = __rdtsc();
        int64_t after = clock_ns();
        if (after - before < best.within)
            best = (struct reading){
                .ns = before + (after - before) / 2, .ticks = ticks, .within = after - before};
    }
    return best;
}

int main(void)
{
    struct reading first = read_both();
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    struct reading last = read_both();
    if (last.ticks <= first.ticks || first.within + last.within > 100000)
        return 1;
    printf("%.0f\n", (double)(last.ticks - first.ticks) * 1e6 / (double)(last.ns - first.ns));
    return 0;
}
