/*
 * templates_x86_64.S - hooks for sampling (struct agent_template): nearly all calls fall through.
 *
 * As few cache lines as can be: a call that is of no interest comes by the lines of its hook, which
 * holds the relocated prologue too, and one line of CTL. It is not asked whether the agent is
 * active: while it is not, the sieve is empty, or no slot has the thread's key, or the slow way
 * finds out. rax, r10 and r11 carry nothing into any of these functions.
 *
 * Operands of 64 bits that the tracer fills in: movabs, and the words behind indirect jumps.
 */
#include "agent/agent.h"

/* Out of the way, before the hook's beginning: to the entry, which does all of it anew. */
.macro TEMPLATE name
	.balign	64
template_\name:
0:	movabs	$0, %r11
	.set	template_\name\()_slot1, . - 8 - template_\name
	jmp	*1f(%rip)
1:	.quad	0
	.set	template_\name\()_entry, . - 8 - template_\name
.endm

/* ... and to agent_before(), with what was counted. */
.macro COUNTED name
2:	xor	%r10d, %r10d
	jmp	4f
3:	mov	$AGENT_WHY_SAMPLED, %r10d
4:	movabs	$0, %r11
	.set	template_\name\()_slot2, . - 8 - template_\name
	jmp	*5f(%rip)
5:	.quad	0
	.set	template_\name\()_counted, . - 8 - template_\name
.endm

/* Behind room for what undoes the function's first instruction. */
.macro BEGIN name
	.balign	64
	.skip	AGENT_UNDO_MAX, 0xcc
	.set	template_\name\()_begin, . - template_\name
.endm

.macro END name
	.set	template_\name\()_size, . - template_\name
.endm

/* The block, whose lower half is given, may have been sampled: to the entry. */
.macro SIEVE name, block
	movabs	$AGENT_CTL_SIEVE, %r11
	.set	template_\name\()_ctl1, . - 8 - template_\name
	imul	$AGENT_SIEVE_FACTOR, \block, %r10d
	shr	$(32 - AGENT_SIEVE_BITS), %r10d
	cmpb	$0, (%r11, %r10)
	jne	0b
.endm

/* The thread's slot: r11 + r10; if it is not where it should be, to the entry. */
.macro THREAD name
	mov	%fs:0, %rax
	movabs	$AGENT_CTL_THREADS, %r11
	.set	template_\name\()_ctl2, . - 8 - template_\name
	THREAD_OFFSET
	cmp	%rax, AGENT_THREAD_KEY(%r11, %r10)
	jne	0b
.endm

/* Each change is one instruction, so handlers can come between. */
.macro COUNT size
	test	\size, \size
	js	0b
	decl	AGENT_THREAD_CALLS(%r11, %r10)
	js	2b
	sub	\size, AGENT_THREAD_COUNTDOWN(%r11, %r10)
	jle	3b
.endm

.macro SIZE name, size
TEMPLATE \name
COUNTED \name
BEGIN \name
THREAD \name
COUNT \size
END \name
	.set	template_\name\()_ctl1, 0
.endm

	.text
SIZE size_first, %rdi
SIZE size_second, %rsi

TEMPLATE product
COUNTED product
BEGIN product
THREAD product
	mov	%rdi, %rax
	imul	%rsi, %rax
	jo	0b
COUNT %rax
END product
	.set	template_product_ctl1, 0

TEMPLATE free
BEGIN free
SIEVE free, %edi
END free
	.set	template_free_slot2, 0
	.set	template_free_counted, 0
	.set	template_free_ctl2, 0

TEMPLATE free_second
BEGIN free_second
SIEVE free_second, %esi
END free_second
	.set	template_free_second_slot2, 0
	.set	template_free_second_counted, 0
	.set	template_free_second_ctl2, 0

TEMPLATE realloc
COUNTED realloc
BEGIN realloc
	test	%rdi, %rdi
	jz	0b
SIEVE realloc, %edi
THREAD realloc
COUNT %rsi
END realloc

/* Something is to be done to the context in rdi, which may be marked: to the entry. */
TEMPLATE context
BEGIN context
	movabs	$AGENT_CTL_CONTEXTS, %r11
	.set	template_context_ctl1, . - 8 - template_context
	imul	$AGENT_SIEVE_FACTOR, %edi, %r10d
	shr	$(32 - AGENT_CONTEXTS_BITS), %r10d
	cmpb	$0, (%r11, %r10)
	jne	0b
END context
	.set	template_context_slot2, 0
	.set	template_context_counted, 0
	.set	template_context_ctl2, 0

.macro DESCRIBE name
	.long	template_\name - agent_templates
	.short	template_\name\()_size, template_\name\()_begin
	.short	template_\name\()_slot1, template_\name\()_slot2
	.short	template_\name\()_counted, template_\name\()_entry
	.short	template_\name\()_ctl1, template_\name\()_ctl2
.endm

	/* agent_header.template, by enum agent_entry. */
	.section .agent.templates, "a"
agent_templates:
DESCRIBE size_first
DESCRIBE size_second
DESCRIBE product
DESCRIBE free
DESCRIBE realloc
	.zero	20
DESCRIBE context
DESCRIBE free_second

	.section .note.GNU-stack, "", @progbits
