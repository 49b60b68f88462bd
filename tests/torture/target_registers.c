#include "target.h"

/*
 * Registers: each round fills them, spins, and compares. The code between fill and compare is in
 * one asm statement, so that whatever differs was changed from outside.
 */

#define SPINS 20000

/* ---- general registers, flags, direction flag ---- */

#ifdef __x86_64__
/* Returns 0 if all held. rbx, rbp, rsp aside, every register has a value of its own. */
static uint64_t hold_registers(void)
{
	uint64_t bad;

	__asm__ volatile(
		"mov $0x1111111111111111, %%rax\n\tmov $0x2222222222222222, %%rdx\n\t"
		"mov $0x3333333333333333, %%rsi\n\tmov $0x4444444444444444, %%rdi\n\t"
		"mov $0x5555555555555555, %%r8\n\tmov $0x6666666666666666, %%r9\n\t"
		"mov $0x7777777777777777, %%r10\n\tmov $0x0888888888888888, %%r11\n\t"
		"mov $0x0999999999999999, %%r12\n\tmov $0x0aaaaaaaaaaaaaaa, %%r13\n\t"
		"mov $0x0bbbbbbbbbbbbbbb, %%r14\n\tmov $0x0ccccccccccccccc, %%r15\n\t"
		"mov %[spins], %%ecx\n\t"
		"std\n\tstc\n"
		"1:\tlea -1(%%rcx), %%rcx\n\tjrcxz 2f\n\tjmp 1b\n"
		"2:\tsetnc %%cl\n\tlea -128(%%rsp), %%rsp\n\tpushfq\n\tcld\n\t"
		"add %%rsi, %%rdx\n\tadd %%rdi, %%rdx\n\tadd %%r8, %%rdx\n\t"
		"add %%r9, %%rdx\n\tadd %%r10, %%rdx\n\tadd %%r11, %%rdx\n\tadd %%r12, %%rdx\n\t"
		"add %%r13, %%rdx\n\tadd %%r14, %%rdx\n\tadd %%r15, %%rdx\n\tadd %%rax, %%rdx\n\t"
		"movzx %%cl, %%ecx\n\tpop %%rax\n\tlea 128(%%rsp), %%rsp\n\tnot %%rax\n\tand $0x400, %%rax\n\t"
		"or %%rcx, %%rax\n\t"
		"mov %[sum], %%rcx\n\txor %%rcx, %%rdx\n\tor %%rdx, %%rax"
		: "=&a"(bad)
		: [spins] "i"(SPINS), [sum] "i"(UINT64_C(0x1111111111111111) + 0x2222222222222222 +
						0x3333333333333333 + 0x4444444444444444 +
						0x5555555555555555 + 0x6666666666666666 +
						0x7777777777777777 + 0x0888888888888888 +
						0x0999999999999999 + 0x0aaaaaaaaaaaaaaa +
						0x0bbbbbbbbbbbbbbb + 0x0ccccccccccccccc)
		: "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
		  "cc", "memory");
	return bad;
}
#else
static uint64_t hold_registers(void)
{
	uint32_t bad;

	__asm__ volatile("mov $0x11111111, %%eax\n\tmov $0x22222222, %%edx\n\t"
			 "mov $0x33333333, %%esi\n\tmov $0x44444444, %%edi\n\t"
			 "mov %[spins], %%ecx\n\tstd\n\tstc\n"
			 "1:\tlea -1(%%ecx), %%ecx\n\tjecxz 2f\n\tjmp 1b\n"
			 "2:\tsetnc %%cl\n\tpushfl\n\tcld\n\t"
			 "add %%esi, %%edx\n\tadd %%edi, %%edx\n\tadd %%eax, %%edx\n\t"
			 "movzx %%cl, %%ecx\n\tpop %%eax\n\tnot %%eax\n\tand $0x400, %%eax\n\t"
			 "or %%ecx, %%eax\n\txor %[sum], %%edx\n\tor %%edx, %%eax"
			 : "=&a"(bad)
			 : [spins] "i"(SPINS), [sum] "i"(0x11111111u + 0x22222222u + 0x33333333u +
							 0x44444444u)
			 : "ecx", "edx", "esi", "edi", "cc", "memory");
	return bad;
}
#endif

void run_cpu(struct kind *kind, unsigned index)
{
	for (;;) {
		uint64_t bad = hold_registers();
		uint64_t checksum = index;

		if (bad)
			round_wrong(kind, "registers or flags: %llx", (unsigned long long)bad);
		for (unsigned i = 1; i <= 10000; i++)
			checksum = checksum * 6364136223846793005u + i * i;
		for (unsigned i = 10000; i; i--)
			checksum = (checksum - i * i) * UINT64_C(0xc097ef87329e28a5);
		if (checksum != index)
			round_wrong(kind, "checksum");
		round_done(kind);
	}
}

/* Leaves some time to the others: only the kind `cpu` never blocks. */
static void rest(struct kind *kind)
{
	if (kind->checks % 64 == 0)
		sleep_us(1000);
}

/* ---- red zone and errno ---- */

#ifdef __x86_64__
/* Fills the 128 bytes below the stack pointer, spins, compares. */
static uint64_t hold_red_zone(void)
{
	uint64_t bad;

	__asm__ volatile("mov $-128, %%rcx\n"
			 "1:\tlea 0x7a7a(%%rcx), %%rdx\n\tmov %%rdx, (%%rsp,%%rcx)\n\t"
			 "add $8, %%rcx\n\tjnz 1b\n\t"
			 "mov %[spins], %%ecx\n"
			 "2:\tdec %%rcx\n\tjnz 2b\n\t"
			 "xor %%eax, %%eax\n\tmov $-128, %%rcx\n"
			 "3:\tlea 0x7a7a(%%rcx), %%rdx\n\txor (%%rsp,%%rcx), %%rdx\n\t"
			 "or %%rdx, %%rax\n\tadd $8, %%rcx\n\tjnz 3b"
			 : "=&a"(bad)
			 : [spins] "i"(SPINS)
			 : "rcx", "rdx", "cc", "memory");
	return bad;
}
#else
/* i386 has none: a frame of the same size above the stack pointer. */
static uint64_t hold_red_zone(void)
{
	volatile uint32_t frame[32];
	uint32_t bad = 0;

	for (unsigned i = 0; i < 32; i++)
		frame[i] = 0x7a7a0000 + i;
	for (volatile unsigned spin = SPINS; spin; spin--)
		;
	for (unsigned i = 0; i < 32; i++)
		bad |= frame[i] ^ (0x7a7a0000 + i);
	return bad;
}
#endif

void run_red_zone(struct kind *kind, unsigned index)
{
	for (;;) {
		uint64_t bad;

		errno = ERRNO_SENTINEL;
		bad = hold_red_zone();
		if (bad)
			round_wrong(kind, "red zone: %llx", (unsigned long long)bad);
		expect_errno(kind, "nothing");
		round_done(kind);
		rest(kind);
	}
}

/* ---- vector registers, x87, their control words ---- */

/* Values of 32 registers of up to 64 bytes, and of eight mask registers. */
struct vectors {
	uint8_t bytes[32][64] __attribute__((aligned(64)));
	uint64_t masks[8];
};

/* clang-format off */
#define REGISTERS_8(X, reg, a, b, c, d, e, f, g, h) \
	X(reg, a) X(reg, b) X(reg, c) X(reg, d) X(reg, e) X(reg, f) X(reg, g) X(reg, h)
#ifdef __x86_64__
#define REGISTERS_16(X, reg)                         \
	REGISTERS_8(X, reg, 0, 1, 2, 3, 4, 5, 6, 7) \
	REGISTERS_8(X, reg, 8, 9, 10, 11, 12, 13, 14, 15)
#else
#define REGISTERS_16(X, reg) REGISTERS_8(X, reg, 0, 1, 2, 3, 4, 5, 6, 7)
#endif
#define REGISTERS_32(X, reg)                                  \
	REGISTERS_16(X, reg)                                  \
	REGISTERS_8(X, reg, 16, 17, 18, 19, 20, 21, 22, 23)   \
	REGISTERS_8(X, reg, 24, 25, 26, 27, 28, 29, 30, 31)
#define MASKS(X) REGISTERS_8(X, k, 0, 1, 2, 3, 4, 5, 6, 7)
/* clang-format on */

#define LOAD_Z(reg, n)	"vmovdqu64 " #n "*64(%0), %%" #reg #n "\n\t"
#define STORE_Z(reg, n) "vmovdqu64 %%" #reg #n ", " #n "*64(%1)\n\t"
#define LOAD_Y(reg, n)	"vmovdqu " #n "*64(%0), %%" #reg #n "\n\t"
#define STORE_Y(reg, n) "vmovdqu %%" #reg #n ", " #n "*64(%1)\n\t"
#define LOAD_X(reg, n)	"movdqu " #n "*64(%0), %%" #reg #n "\n\t"
#define STORE_X(reg, n) "movdqu %%" #reg #n ", " #n "*64(%1)\n\t"
#define LOAD_K(reg, n)	"kmovq 2048+" #n "*8(%0), %%" #reg #n "\n\t"
#define STORE_K(reg, n) "kmovq %%" #reg #n ", 2048+" #n "*8(%1)\n\t"
#define SPIN		"mov %2, %%ecx\n1:\tdec %%ecx\n\tjnz 1b\n\t"

/* The compiler itself keeps nothing in these registers across an asm statement unless told to use
 * AVX: the low halves are named as clobbered, which is all it knows of. */
#ifdef __x86_64__
#define CLOBBERS                                                                               \
	"ecx", "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
		"xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#else
#define CLOBBERS "ecx", "cc", "memory"
#endif

static void hold_sse(const struct vectors *in, struct vectors *out)
{
	__asm__ volatile(REGISTERS_16(LOAD_X, xmm) SPIN REGISTERS_16(STORE_X, xmm)
			 :
			 : "r"(in), "r"(out), "i"(SPINS)
			 : CLOBBERS);
}

static void hold_avx(const struct vectors *in, struct vectors *out)
{
	__asm__ volatile(REGISTERS_16(LOAD_Y, ymm) SPIN REGISTERS_16(STORE_Y, ymm) "vzeroupper"
			 :
			 : "r"(in), "r"(out), "i"(SPINS)
			 : CLOBBERS);
}

#ifdef __x86_64__
static void hold_avx512(const struct vectors *in, struct vectors *out)
{
	__asm__ volatile(REGISTERS_32(LOAD_Z, zmm) MASKS(LOAD_K) SPIN REGISTERS_32(STORE_Z, zmm)
				 MASKS(STORE_K) "vzeroupper"
			 :
			 : "r"(in), "r"(out), "i"(SPINS)
			 : CLOBBERS);
}
#endif

struct vector_level {
	void (*hold)(const struct vectors *in, struct vectors *out);
	unsigned count, width;
	bool masks;
};

static struct vector_level vector_level(void)
{
	unsigned count = sizeof(void *) == 8 ? 16 : 8;

	__builtin_cpu_init();
#ifdef __x86_64__
	if (__builtin_cpu_supports("avx512bw"))
		return (struct vector_level){ hold_avx512, 32, 64, true };
#endif
	if (__builtin_cpu_supports("avx"))
		return (struct vector_level){ hold_avx, count, 32, false };
	return (struct vector_level){ hold_sse, count, 16, false };
}

/* Unusual but harmless: rounding up, no traps; flush to zero. */
static void set_controls(void)
{
	uint32_t mxcsr = 0x1f80 | 0x4000 | 0x8000;
	uint16_t x87 = 0x037f | 0x0800;

	__asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(mxcsr), "m"(x87));
}

static void check_controls(struct kind *kind)
{
	uint32_t mxcsr;
	uint16_t x87;

	__asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(x87));
	if ((mxcsr & 0xffc0) != (0x1f80 | 0x4000 | 0x8000) || x87 != (0x037f | 0x0800))
		round_wrong(kind, "control words %x %x", mxcsr, x87);
}

/* Values that stay on the x87 stack while the thread spins. */
static void check_x87(struct kind *kind, int value)
{
	int first = value, second = ~value, third = value / 3, back[3];

	__asm__ volatile("fildl %3\n\tfildl %4\n\tfildl %5\n\t"
			 "mov %6, %%ecx\n1:\tdec %%ecx\n\tjnz 1b\n\t"
			 "fistpl %2\n\tfistpl %1\n\tfistpl %0"
			 : "=m"(back[0]), "=m"(back[1]), "=m"(back[2])
			 : "m"(first), "m"(second), "m"(third), "i"(SPINS)
			 : "ecx", "cc", "st", "st(1)", "st(2)");
	if (back[0] != first || back[1] != second || back[2] != third)
		round_wrong(kind, "x87 stack");
}

void run_vector(struct kind *kind, unsigned index)
{
	struct vectors in, out;
	struct vector_level level = vector_level();
	uint32_t random = random_seed();

	set_controls();
	for (;;) {
		for (unsigned i = 0; i < 32 * 64; i++)
			in.bytes[i / 64][i % 64] = (uint8_t)random_next(&random);
		for (unsigned i = 0; i < 8; i++)
			in.masks[i] = (uint64_t)random_next(&random) << 32 | random_next(&random);
		level.hold(&in, &out);
		for (unsigned i = 0; i < level.count; i++)
			if (memcmp(in.bytes[i], out.bytes[i], level.width))
				round_wrong(kind, "vector register %u of %u bytes", i, level.width);
		if (level.masks && memcmp(in.masks, out.masks, sizeof(in.masks)))
			round_wrong(kind, "mask registers");
		check_x87(kind, (int)random_next(&random));
		check_controls(kind);
		round_done(kind);
		rest(kind);
	}
}
