/* Manifests, indexes and configs, each of them read as each. */
#include <stdint.h>
#include <stdlib.h>

#include "builder/plan.h"
#include "image/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    sm_error err;
    struct sm_descriptor d;
    struct sm_platform platform;
    auto_json *root = NULL;
    if (sm_platform_parse("linux/arm64/v8", &platform, &err) != 0)
        abort();
    if (sm_json_parse(text, size, "the input", &root, &err) == 0) {
        (void)sm_index_choose_platform(root, &platform, &d, &err);
        (void)sm_layout_choose(root, NULL, &platform, &d, &err);
        (void)sm_layout_choose(root, "latest", &platform, &d, &err);
        (void)sm_layout_choose(root, "@1", &platform, &d, &err);
    }
    struct sm_plan plan = {0};
    if (sm_plan_manifest(text, size, &d, &plan, &err) == 0)
        (void)sm_plan_config(text, size, &plan, &err);
    sm_plan_clear(&plan);
    struct sm_plan empty = {0};
    (void)sm_plan_config(text, size, &empty, &err);
    sm_plan_clear(&empty);
    return 0;
}
