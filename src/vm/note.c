/* The note of a snapshot. See note.h. */
#include "vm/note.h"

#include <jansson.h>
#include <signal.h>

void sm_note_read(struct sm_note *note, const char *text)
{
    json_t *json = text ? json_loads(text, 0, NULL) : NULL;
    json_int_t pid = json_integer_value(json_object_get(json, "pid"));
    json_int_t stop_signal = json_integer_value(json_object_get(json, "stop_signal"));
    *note = (struct sm_note){
        .state = json_string_value(json_object_get(json, "state")),
        .digest = json_string_value(json_object_get(json, "digest")),
        .source = json_string_value(json_object_get(json, "source")),
        .egress = json_string_value(json_object_get(json, "egress")),
        .asked = json_string_value(json_object_get(json, "asked")),
        .began = json_string_value(json_object_get(json, "began")),
        .pid = pid > 0 && pid <= INT32_MAX ? (uint32_t)pid : 0,
        .stop_signal = stop_signal > 0 && stop_signal < _NSIG ? (int)stop_signal : 0,
        .terminal = json_is_true(json_object_get(json, "terminal")),
        .network_moved = json_is_true(json_object_get(json, "network_moved")),
        .resolver_told = json_is_true(json_object_get(json, "resolver_told")),
        .json = json,
    };
}

void sm_note_clear(struct sm_note *note)
{
    json_decref(note->json);
    *note = (struct sm_note){0};
}

char *sm_note_write(const struct sm_note *note)
{
    json_t *json = json_pack("{s:s?, s:s?, s:s?, s:I, s:i, s:b, s:s?, s:s?, s:s?, s:b, s:b}",
        "state", note->state, "digest", note->digest, "source", note->source, "pid",
        (json_int_t)note->pid, "stop_signal", note->stop_signal, "terminal", (int)note->terminal,
        "egress", note->egress, "asked", note->asked, "began", note->began, "network_moved",
        (int)note->network_moved, "resolver_told", (int)note->resolver_told);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    return text;
}
