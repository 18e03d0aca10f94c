/*
 * A snapshot's note, of a file that may be anybody's. What was read is written and read again to
 * the same; the policy in it only ever takes away from what the user has given, and narrowing by it
 * a second time changes nothing.
 */
#include "fuzz.h"
#include "vm/network.h"
#include "vm/note.h"

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static void look(const struct sm_note *note)
{
    struct sm_note again;
    char *text = sm_note_write(note);
    fuzz_demand(text);
    sm_note_read(&again, text);
    fuzz_demand(same(note->state, again.state) && same(note->digest, again.digest) &&
                same(note->source, again.source) && same(note->egress, again.egress) &&
                same(note->asked, again.asked) && same(note->began, again.began) &&
                note->pid == again.pid && note->network_moved == again.network_moved &&
                note->resolver_told == again.resolver_told && note->pid <= INT32_MAX);
    sm_note_clear(&again);
    free(text);
}

/* What a user has given, by the first byte. */
static const char *const given[] = {
    NULL, "layer none\nallow 10.0.0.0/8\nallow example.com\n", "layer public\ndeny 8.8.8.8\n"};

static void narrow(const char *egress, unsigned which)
{
    struct sm_vm_network network;
    sm_error err;
    char *once = NULL, *twice = NULL;
    const struct sm_vm_network_config config = {.egress = given[which]};
    fuzz_demand(sm_vm_network_init(&network, &config, &(struct sm_vm_events){0}, &err) == 0);
    if (sm_vm_network_narrow(&network, egress, &err) == 0) {
        fuzz_demand(sm_vm_network_policy(&network, &once, &err) == 0);
        if (once && sm_vm_network_narrow(&network, once, &err) == 0) {
            fuzz_demand(sm_vm_network_policy(&network, &twice, &err) == 0);
            fuzz_demand(same(once, twice));
        }
    }
    sm_vm_network_clear(&network);
    free(once);
    free(twice);
}

/* Input: what the user has given, and the note. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    unsigned which = (unsigned)fuzz_take(&in, 1) % 3;
    char *text = fuzz_text(&in, '\0');
    struct sm_note note;
    sm_note_read(&note, text);
    look(&note);
    if (note.egress)
        narrow(note.egress, which);
    sm_note_clear(&note);
    free(text);
    return 0;
}
