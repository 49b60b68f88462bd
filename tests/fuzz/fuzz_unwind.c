/*
 * libFuzzer: any bytes as the call frame information of a module, by which libunwind unwinds stacks
 * that lead through all functions it describes. libunwind itself has neither bounds nor sanitizers:
 * what crashes it, or keeps it busy for ever, must not have come to it.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "memprobe/eh_frame.h"
#include "../unit/fake.h"
#include "memprobe/num.h"
#include "stack/unwinder.h"

#define PLACE	   UINT64_C(0x400000)
#define TEXT	   0x1000
#define TEXT_END   0x80000
#define ADDRESS	   TEXT_END /* of .eh_frame */
#define STACK	   UINT64_C(0x7fff0000)
#define STACK_SIZE 0x8000
#define ROWS_MAX   8192
#define STARTS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

struct head {
	Elf64_Ehdr header;
	Elf64_Phdr segments[2];
	Elf64_Shdr sections[3];
	char names[32];
};

static void must(struct error *error)
{
	if (error)
		abort();
}

static void make_head(struct head *head, size_t size)
{
	static const char names[] = "\0.eh_frame\0.shstrtab";

	*head = (struct head){
		.header = {
			.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
			.e_type = ET_DYN, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
			.e_phoff = offsetof(struct head, segments),
			.e_shoff = offsetof(struct head, sections),
			.e_ehsize = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 2, .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 3,
			.e_shstrndx = 2,
		},
		.segments = {
			{ .p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_filesz = TEXT_END,
			  .p_memsz = TEXT_END, .p_align = PAGE_SIZE },
			{ .p_type = PT_LOAD, .p_flags = PF_R, .p_offset = ADDRESS,
			  .p_vaddr = ADDRESS, .p_filesz = size, .p_memsz = size,
			  .p_align = PAGE_SIZE },
		},
		.sections = {
			{ .sh_type = SHT_NULL },
			{ .sh_name = 1, .sh_type = SHT_PROGBITS, .sh_addr = ADDRESS,
			  .sh_offset = ADDRESS, .sh_size = size },
			{ .sh_name = 11, .sh_type = SHT_STRTAB,
			  .sh_offset = offsetof(struct head, names), .sh_size = sizeof(names) },
		},
	};
	memcpy(head->names, names, sizeof(names));
}

static struct target *make_target(const uint8_t *bytes, size_t size)
{
	struct target *target;
	struct head head;

	make_head(&head, size);
	must(fake_target_create(&arch_x86_64, &target));
	must(fake_target_add_segment(target, &(struct fake_segment){ .start = PLACE,
								     .size = TEXT_END,
								     .bytes = &head,
								     .bytes_size = sizeof(head),
								     .perms = PERM_READ | PERM_EXEC,
								     .path = "/module",
								     .inode = 7 }));
	must(fake_target_add_segment(target,
				     &(struct fake_segment){ .start = PLACE + ADDRESS,
							     .size = round_up(size, PAGE_SIZE),
							     .bytes = bytes,
							     .bytes_size = size,
							     .perms = PERM_READ,
							     .path = "/module",
							     .offset = ADDRESS,
							     .inode = 7 }));
	return target;
}

/* Where rows of the table begin. */
static size_t find_starts(const uint8_t *bytes, size_t size, uint64_t *starts)
{
	static struct unwind_row rows[ROWS_MAX];
	struct eh_frame eh_frame = { .bytes = bytes,
				     .size = size,
				     .address = ADDRESS,
				     .text_start = 0,
				     .text_end = TEXT_END };
	struct eh_frame_counts counts;
	size_t count = 0, found = 0;
	struct error *error = eh_frame_compile(&eh_frame, rows, ROWS_MAX, &count, &counts);

	if (error)
		count = 0;
	error_destroy(error);
	for (size_t i = 0; i < count && found < STARTS_MAX; i += 1 + count / STARTS_MAX)
		starts[found++] = PLACE + rows[i].offset;
	return found;
}

static void unwind_from(struct libunwind_unwinder *unwinder, struct stack_memory *memory,
			uint64_t start, unsigned shift)
{
	struct x86_64_regs {
		uint64_t words[sizeof(struct user_regs_struct) / 8];
	} regs;
	struct thread_state state = { .tid = 1, .stack_start = STACK, .stack_size = STACK_SIZE };
	struct frame_vec frames = { 0 };
	uint64_t *words = calloc(1, STACK_SIZE);
	const struct arch_register *reg = arch_x86_64.registers;

	if (!words)
		return;
	/* Addresses of code and of the stack in turns. */
	for (size_t i = 0; i < STACK_SIZE / 8; i++)
		words[i] = (i + shift) % 3 ? start + 1 + i % 7
					   : STACK + (i * 8 + 16 * (i % 11)) % STACK_SIZE;
	for (; reg->number >= 0; reg++)
		regs.words[reg->offset / 8] = STACK + 64 * (uint64_t)reg->number;
	memcpy(&state.regs, &regs, sizeof(state.regs));
	state.regs.rip = start + shift;
	state.stack = (uint8_t *)words;
	memory->state = &state;
	must(libunwind_unwind(unwinder, &frames));
	assert(frames.size >= 1 && frames.size <= UNWIND_FRAMES_MAX);
	frame_vec_deinit(&frames);
	free(words);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	uint64_t starts[STARTS_MAX];
	size_t count;
	struct stack_memory memory = { 0 };
	struct libunwind_unwinder *unwinder;
	struct target *target;

	if (size < 16)
		return 0;
	count = find_starts(bytes, size, starts);
	target = make_target(bytes, size);
	memory.target = target;
	must(libunwind_unwinder_create(target, &memory, &unwinder));
	for (size_t i = 0; i < count; i++)
		unwind_from(unwinder, &memory, starts[i], i % 3);
	libunwind_unwinder_destroy(unwinder);
	stack_memory_deinit(&memory);
	target_destroy(target);
	return 0;
}
