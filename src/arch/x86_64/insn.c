/* Decoder of the assist. See insn.h. */
#include "arch/x86_64/insn.h"

#include "util/bytes.h"

struct cursor {
    const uint8_t *bytes;
    size_t n, at;
    bool truncated;
};

static uint8_t next(struct cursor *c)
{
    if (c->at >= c->n || c->at >= SM_INSN_MAX_BYTES) {
        c->truncated = true;
        return 0;
    }
    return c->bytes[c->at++];
}

static int32_t next32(struct cursor *c)
{
    uint8_t b[4];
    for (size_t i = 0; i < sizeof(b); i++)
        b[i] = next(c);
    return (int32_t)sm_load_le32(b);
}

struct prefixes {
    bool operand16, repne, rep, lock;
    uint8_t rex;
};

/* Reads prefixes up to the first opcode byte, which is returned. A REX that is not the last prefix
 * does not count. */
static uint8_t read_prefixes(struct cursor *c, struct prefixes *p, struct sm_insn *insn)
{
    for (;;) {
        uint8_t b = next(c);
        if (c->truncated)
            return 0;
        if ((b & 0xf0) == 0x40) {
            p->rex = b;
            continue;
        }
        switch (b) {
        case 0x66:
            p->operand16 = true;
            break;
        case 0x67:
            insn->address32 = true;
            break;
        case 0xf2:
            p->repne = true;
            break;
        case 0xf3:
            p->rep = true;
            break;
        case 0xf0:
            p->lock = true;
            break;
        case 0x64:
            insn->segment = SM_INSN_SEG_FS;
            break;
        case 0x65:
            insn->segment = SM_INSN_SEG_GS;
            break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e: /* no meaning in 64-bit mode */
            break;
        default:
            return b;
        }
        p->rex = 0;
    }
}

static void read_modrm(struct cursor *c, uint8_t rex, struct sm_insn *insn)
{
    uint8_t modrm = next(c);
    unsigned mod = modrm >> 6;
    insn->reg = (uint8_t)((modrm >> 3 & 7) | (rex & 4) << 1);
    insn->rm = modrm & 7;
    if (mod == 3) {
        insn->rm |= (uint8_t)((rex & 1) << 3);
        return;
    }
    insn->memory = true;
    if (insn->rm == 4) {
        uint8_t sib = next(c);
        unsigned index = (sib >> 3 & 7u) | (rex & 2u) << 2;
        unsigned base = sib & 7u;
        insn->scale_shift = sib >> 6;
        if (index != 4)
            insn->index = (int8_t)index;
        if (base == 5 && mod == 0)
            insn->displacement = next32(c);
        else
            insn->base = (int8_t)(base | (rex & 1u) << 3);
    } else if (insn->rm == 5 && mod == 0) {
        insn->rip_relative = true;
        insn->displacement = next32(c);
    } else {
        insn->base = (int8_t)(insn->rm | (rex & 1) << 3);
    }
    if (mod == 1)
        insn->displacement = (next(c) ^ 0x80) - 0x80; /* sign-extended */
    else if (mod == 2)
        insn->displacement = next32(c);
}

static enum sm_insn_op group_0f01(uint8_t modrm)
{
    switch (modrm) {
    case 0xca:
        return SM_INSN_CLAC;
    case 0xcb:
        return SM_INSN_STAC;
    case 0xd0:
        return SM_INSN_XGETBV;
    case 0xd1:
        return SM_INSN_XSETBV;
    default:
        return SM_INSN_UNKNOWN;
    }
}

static enum sm_insn_op group_0fae(const struct sm_insn *insn)
{
    if (!insn->memory)
        return SM_INSN_UNKNOWN;
    switch (insn->reg & 7) {
    case 4:
        return SM_INSN_XSAVE;
    case 5:
        return SM_INSN_XRSTOR;
    case 6:
        return SM_INSN_XSAVEOPT;
    default:
        return SM_INSN_UNKNOWN;
    }
}

static enum sm_insn_op group_0fc7(const struct sm_insn *insn)
{
    if (!insn->memory)
        return SM_INSN_UNKNOWN;
    switch (insn->reg & 7) {
    case 1:
        return insn->wide ? SM_INSN_CMPXCHG16B : SM_INSN_UNKNOWN;
    case 3:
        return SM_INSN_XRSTORS;
    case 4:
        return SM_INSN_XSAVEC;
    case 5:
        return SM_INSN_XSAVES;
    default:
        return SM_INSN_UNKNOWN;
    }
}

struct sm_insn sm_insn_decode(const uint8_t *bytes, size_t n)
{
    struct cursor c = {.bytes = bytes, .n = n};
    struct sm_insn insn = {.base = -1, .index = -1};
    struct prefixes p = {0};
    uint8_t opcode = read_prefixes(&c, &p, &insn);
    insn.wide = p.rex & 8;
    insn.operand_bytes = insn.wide ? 8 : p.operand16 ? 2 : 4;
    enum sm_insn_op op = SM_INSN_UNKNOWN;
    bool plain = !p.operand16 && !p.rep && !p.repne;
    if (opcode == 0xcc) {
        op = SM_INSN_INT3;
    } else if (opcode == 0x9b) {
        op = SM_INSN_FWAIT;
    } else if (opcode == 0x0f && !c.truncated) {
        opcode = next(&c);
        if (opcode == 0x01 && plain) {
            op = group_0f01(next(&c));
        } else if (opcode == 0x03 && plain) {
            read_modrm(&c, p.rex, &insn);
            op = insn.memory ? SM_INSN_UNKNOWN : SM_INSN_LSL;
        } else if (opcode == 0xb8 && p.rep && !p.repne) {
            read_modrm(&c, p.rex, &insn);
            op = SM_INSN_POPCNT;
        } else if (opcode == 0xae && plain) {
            read_modrm(&c, p.rex, &insn);
            op = group_0fae(&insn);
        } else if (opcode == 0xc7 && plain) {
            read_modrm(&c, p.rex, &insn);
            op = group_0fc7(&insn);
        }
    }
    if (p.lock && op != SM_INSN_CMPXCHG16B)
        op = SM_INSN_UNKNOWN;
    if (c.truncated)
        op = c.at >= SM_INSN_MAX_BYTES ? SM_INSN_UNKNOWN : SM_INSN_TRUNCATED;
    insn.op = op;
    insn.length = (uint8_t)c.at;
    return insn;
}

uint64_t sm_insn_address(const struct sm_insn *insn, const uint64_t gpr[16], uint64_t rip,
    uint64_t fs_base, uint64_t gs_base)
{
    uint64_t a = (uint64_t)(int64_t)insn->displacement;
    if (insn->rip_relative)
        a += rip + insn->length;
    if (insn->base >= 0)
        a += gpr[insn->base];
    if (insn->index >= 0)
        a += gpr[insn->index] << insn->scale_shift;
    if (insn->address32)
        a = (uint32_t)a;
    if (insn->segment == SM_INSN_SEG_FS)
        a += fs_base;
    else if (insn->segment == SM_INSN_SEG_GS)
        a += gs_base;
    return a;
}
