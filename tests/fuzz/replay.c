/*
 * Runs a fuzz target without a fuzzer: every seed file as it is, cut at each of many lengths, and
 * with deterministic mutations; so each parser's target is also a test of every build, whatever the
 * compiler. With -n 0 a file is run as it is and no more.
 *
 *     TARGET { [-n MUTATIONS] SEED... }...
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_SEED (1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t rng = 0x9e3779b97f4a7c15u;

static uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

/* On memory of its exact size, so that a sanitizer sees reads behind it. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    if (!exact)
        abort();
    memcpy(exact, data, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static size_t mutate(uint8_t *data, size_t size, size_t room)
{
    static const uint8_t odd[] = {0x00, 0xff, 0x7f, 0x80, 0x01, 0xc0, '\n', ' '};
    for (uint64_t n = 1 + next() % 4; n > 0 && size > 0; n--) {
        size_t at = next() % size;
        switch (next() % 5) {
        case 0:
            data[at] ^= (uint8_t)(1u << (next() % 8));
            break;
        case 1:
            data[at] = odd[next() % sizeof(odd)];
            break;
        case 2: /* cut a piece out */
            memmove(data + at, data + at + 1, size - at - 1);
            size--;
            break;
        case 3: { /* repeat a piece */
            size_t len = 1 + next() % 16;
            if (len > size - at)
                len = size - at;
            if (size + len > room)
                break;
            memmove(data + at + len, data + at, size - at);
            size += len;
            break;
        }
        default:
            data[at] = (uint8_t)next();
        }
    }
    return size;
}

static int replay(const char *path, unsigned long mutations)
{
    static uint8_t seed[MAX_SEED], work[MAX_SEED];
    FILE *in = fopen(path, "rb");
    if (!in) {
        perror(path);
        return 1;
    }
    size_t size = fread(seed, 1, sizeof(seed), in);
    fclose(in);
    run(seed, size);
    if (mutations == 0)
        return 0;
    size_t step = size / 512 + 1;
    for (size_t cut = 0; cut < size; cut += step)
        run(seed, cut);
    for (unsigned long i = 0; i < mutations; i++) {
        memcpy(work, seed, size);
        run(work, mutate(work, size, sizeof(work)));
    }
    return 0;
}

static int replay_all(const char *path, unsigned long mutations)
{
    struct stat st;
    if (stat(path, &st) || !S_ISDIR(st.st_mode))
        return replay(path, mutations);
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort);
    if (n < 0) {
        perror(path);
        return 1;
    }
    int rc = 0;
    for (int i = 0; i < n; i++) {
        if (names[i]->d_name[0] != '.') {
            char file[4096];
            snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
            rc |= replay(file, mutations);
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

int main(int argc, char **argv)
{
    unsigned long mutations = 20000;
    int rc = 0, seeds = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-n") == 0 && i + 1 < argc) {
            mutations = strtoul(argv[++i], NULL, 10);
        } else {
            rc |= replay_all(argv[i], mutations);
            seeds++;
        }
    }
    if (seeds == 0)
        fprintf(stderr, "%s: no seeds\n", argv[0]);
    return seeds == 0 || rc;
}
