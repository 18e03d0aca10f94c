/* Policy text: whatever is accepted must come back from its own text form, and deciding must
 * cope. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_policy policy = {0};
    auto_policy again = {0};
    auto_free char *text = NULL;
    auto_free char *second = NULL;
    struct sm_name_set set = {0};
    struct sm_ip ip = {{0}};
    if (sm_policy_parse((const char *)data, size, &policy, NULL))
        return 0;
    if (sm_policy_format(&policy, &text, NULL) ||
        sm_policy_parse(text, strlen(text), &again, NULL) ||
        sm_policy_format(&again, &second, NULL) || strcmp(text, second) != 0)
        abort();
    memcpy(ip.b, data, size < 16 ? size : 16);
    (void)sm_policy_match_names(&policy, "a.example.com", &set);
    if (sm_policy_decide(&policy, &ip, 80, &set) != sm_policy_decide(&again, &ip, 80, &set))
        abort();
    if (sm_ip_classify(&ip) == SM_IP_THIS_HOST &&
        sm_policy_decide(&policy, &ip, 80, &set) != SM_VERDICT_LOOPBACK)
        abort();
    (void)sm_policy_decide_name(&policy, "a.example.com");
    (void)sm_policy_decide_answer(&policy, &ip);
    if (sm_policy_narrow(&again, &policy, NULL) || again.n_layers > policy.n_layers)
        abort();
    return 0;
}
