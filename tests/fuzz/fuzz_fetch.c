/* The line that tells supermachine-image how images are got. What is read of it is written and read
 * again as it was. */
#include <string.h>

#include "builder/fetch_read.h"
#include "fuzz.h"
#include "image/json.h"

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_json *owner = NULL;
    auto_json *again = NULL;
    auto_free char *line = NULL;
    struct sm_fetch first, second;
    sm_error err = {.code = SM_OK};
    int rc = sm_fetch_read((const char *)data, size, &first, &owner, &err);
    fuzz_demand(rc == 0 ? owner != NULL : !owner && rc == -(int)err.code && *err.message);
    if (rc)
        return 0;
    fuzz_demand(sm_fetch_write(&first, &line, &err) == 0);
    fuzz_demand(sm_fetch_read(line, strlen(line), &second, &again, &err) == 0);
    fuzz_demand(same_text(first.platform, second.platform));
    fuzz_demand(same_text(first.tls_ca, second.tls_ca));
    fuzz_demand(same_text(first.authfile, second.authfile));
    fuzz_demand(first.insecure == second.insecure && first.stall_s == second.stall_s &&
                first.max_bytes == second.max_bytes);
    return 0;
}
