/* Hostile kernel files: whatever is loaded lies in RAM above the first MiB, and where it says. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86_64/boot.h"

#define RAM   (32u << 20)
#define GUARD 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The file is padded to the least length that is looked at, so that short inputs get somewhere. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t *ram;
    static int fd = -1;
    if (!ram) {
        ram = mmap(NULL, RAM + GUARD, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        fd = memfd_create("kernel", MFD_CLOEXEC);
        if (ram == MAP_FAILED || fd < 0 || mprotect(ram + RAM, GUARD, PROT_NONE))
            abort();
    }
    if (ftruncate(fd, 0) || ftruncate(fd, size < 8192 ? 8192 : (off_t)size) ||
        pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    struct sm_kernel_image image;
    sm_error err = {0};
    int rc = sm_x86_load_kernel(fd, ram, RAM, &image, &err);
    if (rc == 0 && (image.entry < 0x100000 || image.entry >= image.end || image.end > RAM))
        abort();
    if (rc != 0 && (err.code != (enum sm_code) - rc || !*err.message))
        abort();
    for (size_t i = 0; i < 0x100000; i += 4096) { /* the first MiB is ours */
        if (ram[i])
            abort();
    }
    return 0;
}
