/* An image in a tar file, packed or not: as oci-archive and as docker-archive, up to the plan of
 * what is to be unpacked. */
#include "builder/archive.h"
#include "builder/plan.h"
#include "fuzz.h"
#include "image/json.h"
#include "store.h"
#include "tar.h"

static const struct sm_platform platform = {.os = "linux", .arch = "amd64"};

/* What is unpacked later begins with these bytes. */
static void read_layers(struct sm_source *source, const struct sm_plan *plan)
{
    for (size_t i = 0; i < plan->layer_count; i++) {
        struct sm_blob blob = {.fd = -1};
        char head[512];
        const struct sm_layer *l = &plan->layers[i];
        if (source->open(source, &l->blob, l->name, &blob, NULL) == 0)
            (void)sm_blob_read(&blob, 0, head, sizeof(head), NULL);
        sm_blob_close(&blob);
    }
}

static void open_oci(struct sm_imgstore *store, const char *path)
{
    auto_json *index = NULL;
    struct sm_source *source = NULL;
    struct sm_descriptor top;
    struct sm_plan plan = {0};
    if (sm_oci_archive_open(store, NULL, path, &source, &index, NULL) != 0)
        return;
    if (sm_layout_choose(index, NULL, &platform, &top, NULL) == 0 &&
        sm_plan_oci(source, &top, &platform, &plan, NULL) == 0)
        read_layers(source, &plan);
    sm_plan_clear(&plan);
    sm_source_free(source);
}

static void open_docker(struct sm_imgstore *store, const char *path)
{
    auto_json *manifest = NULL;
    struct sm_source *source = NULL;
    struct sm_plan plan = {0};
    if (sm_docker_archive_open(store, NULL, path, &source, &manifest, NULL) != 0)
        return;
    if (sm_plan_docker(source, manifest, NULL, &platform, &plan, NULL) == 0)
        read_layers(source, &plan);
    sm_plan_clear(&plan);
    sm_source_free(source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sm_imgstore *store = fuzz_store(); /* has the temporary file of a packed archive */
    char path[32];
    uint8_t *copy = malloc(size + 1);
    fuzz_demand(copy);
    memcpy(copy, data, size);
    fuzz_mend_tar(copy, size);
    int before = fuzz_next_fd(), fd = fuzz_file(copy, size, path);
    open_oci(store, path);
    open_docker(store, path);
    close(fd);
    fuzz_demand(fuzz_next_fd() == before);
    free(copy);
    return 0;
}
