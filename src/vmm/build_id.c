/* Identity of this build: the linker's build id of the object (program or shared library) we are in. */
#include <elf.h>
#include <link.h>
#include <string.h>

#include "util/bytes.h"
#include "vmm/machine.h"

struct search {
    uintptr_t inside; /* an address in the object looked for */
    uint8_t *id;
};

/* Copies the id out of a PT_NOTE segment; false: it holds none. */
static bool read_note(const uint8_t *note, size_t bytes, uint8_t *id)
{
    while (bytes >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr h;
        memcpy(&h, note, sizeof(h));
        size_t name = sm_align_up(h.n_namesz, 4), desc = sm_align_up(h.n_descsz, 4);
        if (name > bytes || desc > bytes || sizeof(h) + name + desc > bytes)
            return false;
        if (h.n_type == NT_GNU_BUILD_ID && h.n_namesz == 4 && !memcmp(note + sizeof(h), "GNU", 4)) {
            memcpy(id, note + sizeof(h) + name, SM_MIN(h.n_descsz, (size_t)SM_VMM_BUILD_ID_BYTES));
            return true;
        }
        note += sizeof(h) + name + desc;
        bytes -= sizeof(h) + name + desc;
    }
    return false;
}

static int look_at(struct dl_phdr_info *object, size_t size, void *arg)
{
    (void)size;
    struct search *s = arg;
    bool ours = false;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];
        uintptr_t start = object->dlpi_addr + p->p_vaddr;
        ours |= p->p_type == PT_LOAD && s->inside >= start && s->inside - start < p->p_memsz;
    }
    for (int i = 0; ours && i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];
        if (p->p_type == PT_NOTE &&
            read_note((const uint8_t *)(object->dlpi_addr + p->p_vaddr), p->p_memsz, s->id))
            break;
    }
    return ours;
}

void sm_vmm_build_id(uint8_t id[SM_VMM_BUILD_ID_BYTES])
{
    static const char marker; /* lies in our object, unlike the PLT entry a function may have */
    struct search s = {.inside = (uintptr_t)&marker, .id = id};
    memset(id, 0, SM_VMM_BUILD_ID_BYTES);
    strncpy((char *)id, SM_VERSION, SM_VMM_BUILD_ID_BYTES - 1); /* if linked without an id */
    dl_iterate_phdr(look_at, &s);
}
