/*
 * entry_x86_64.S - where the hooks jump to: the image's header, fast paths, frames.
 *
 * In: r11 the slot; everything else as the function's caller left it. Until a call is known to be of
 * interest nothing but r10, r11 and flags is changed, and the original is jumped to, not called: it
 * sees the caller's return address and arguments, and exceptions, longjmp and unwinders see nothing.
 */
#include "agent/agent.h"

	.section .agent.header, "a"
	.globl	agent_header
	.hidden	agent_header
agent_header:
	.asciz	AGENT_MAGIC
	.long	AGENT_VERSION
	.long	agent_image_size
	.long	AGENT_IMAGE_SPACE
	.long	AGENT_CTL_SIZE
	.long	AGENT_CONFIG_OFFSET
	.long	agent_text_start - agent_header
	.long	agent_text_end - agent_header
	.long	agent_return_point - agent_header
	.long	entry_counted - agent_header
	.long	entry_size_first - agent_header
	.long	entry_size_second - agent_header
	.long	entry_product - agent_header
	.long	entry_free - agent_header
	.long	entry_realloc - agent_header
	.long	entry_any - agent_header
	.long	entry_context - agent_header
	.long	entry_free_second - agent_header
	/* The templates follow: templates_x86_64.S. */

	.text

/* Leaves what need not be looked at: by the original, or by `traced` if everything is. */
.macro ENTRY name
	.balign	64
\name:
	endbr64
	mov	agent_ctl + AGENT_CTL_ACTIVE(%rip), %r10d
	cmp	$AGENT_SAMPLING, %r10d
	jne	not_sampling
.endm

/* ZF: the filter does not know the block. Clobbers r10. */
.macro FILTER block
	push	%rax
	mov	\block, %r10
	mov	\block, %rax
	shr	$4, %r10
	shr	$20, %rax
	xor	%eax, %r10d
	movzwl	%r10w, %r10d
	lea	agent_ctl + AGENT_CTL_FILTER(%rip), %rax
	cmpb	$0, (%rax, %r10)
	pop	%rax
.endm

/*
 * Counts a call of \size bytes; the address of the thread's slot goes to r10. \saved: a register to
 * be popped at last. Each change of the slot is one instruction, so handlers can come between.
 */
.macro COUNT size, saved
	push	%rax
	mov	%fs:0, %rax
	THREAD_OFFSET
	lea	agent_ctl + AGENT_CTL_THREADS(%rip), %rax
	add	%rax, %r10
	mov	%fs:0, %rax
	cmp	%rax, AGENT_THREAD_KEY(%r10)
	jne	4f
1:	decl	AGENT_THREAD_CALLS(%r10)
	js	3f
	sub	\size, AGENT_THREAD_COUNTDOWN(%r10)
	jle	2f
	pop	%rax
.ifnb \saved
	pop	\saved
.endif
	jmp	*AGENT_SLOT_ORIGINAL(%r11)
2:	pop	%rax
.ifnb \saved
	pop	\saved
.endif
	mov	$AGENT_WHY_SAMPLED, %r10d
	jmp	traced
3:	pop	%rax
.ifnb \saved
	pop	\saved
.endif
	jmp	look
	/* Another thread's: ours is further on, or nowhere. */
4:	push	%rcx
	mov	$(AGENT_THREAD_PROBES - 1), %ecx
6:	cmpq	$0, AGENT_THREAD_KEY(%r10)
	je	7f
	add	$AGENT_THREAD_SIZE, %r10
	cmp	%rax, AGENT_THREAD_KEY(%r10)
	je	8f
	dec	%ecx
	jnz	6b
7:	pop	%rcx
	jmp	3b
8:	pop	%rcx
	jmp	1b
.endm

ENTRY entry_size_first
	test	%rdi, %rdi
	js	pass
	COUNT	%rdi

ENTRY entry_size_second
	test	%rsi, %rsi
	js	pass
	COUNT	%rsi

ENTRY entry_any
	jmp	look

/* What holds nothing of interest need not be looked at. */
ENTRY entry_context
	push	%rax
	imul	$AGENT_SIEVE_FACTOR, %edi, %r10d
	shr	$(32 - AGENT_CONTEXTS_BITS), %r10d
	lea	agent_ctl + AGENT_CTL_CONTEXTS(%rip), %rax
	cmpb	$0, (%rax, %r10)
	pop	%rax
	jne	look
	jmp	*AGENT_SLOT_ORIGINAL(%r11)

/* From a template, which has taken the call off the thread's slot. In: r10 AGENT_WHY_... */
	.balign	64
entry_counted:
	endbr64
	cmpl	$AGENT_INACTIVE, agent_ctl + AGENT_CTL_ACTIVE(%rip)
	jne	traced
	jmp	*AGENT_SLOT_ORIGINAL(%r11)

ENTRY entry_product
	push	%rcx
	mov	%rdi, %rcx
	imul	%rsi, %rcx
	jo	5f
	test	%rcx, %rcx
	js	5f
	COUNT	%rcx, %rcx
5:	pop	%rcx
	jmp	pass

ENTRY entry_free
	FILTER	%rdi
	jne	look
	jmp	*AGENT_SLOT_ORIGINAL(%r11)

ENTRY entry_free_second
	FILTER	%rsi
	jne	look
	jmp	*AGENT_SLOT_ORIGINAL(%r11)

ENTRY entry_realloc
	test	%rdi, %rdi
	jz	look
	FILTER	%rdi
	jne	look
	test	%rsi, %rsi
	js	pass
	COUNT	%rsi

	.balign	64
not_sampling:
	test	%r10d, %r10d
	jnz	look
pass:
	jmp	*AGENT_SLOT_ORIGINAL(%r11)

look:
	mov	$AGENT_WHY_LOOK, %r10d
traced:
	push	%rbp
	mov	%rsp, %rbp
	push	%r9
	push	%r8
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%rax
	push	%r11
	push	%rbx
	sub	$AGENT_CALL_RBX, %rsp
	mov	%rsp, %rdi
	mov	%r10d, %esi
	call	agent_before
	test	%eax, %eax
	jz	left
	mov	AGENT_CALL_RBX + 16(%rsp), %rax
	mov	AGENT_CALL_RBX + 24(%rsp), %rdi
	mov	AGENT_CALL_RBX + 32(%rsp), %rsi
	mov	AGENT_CALL_RBX + 40(%rsp), %rdx
	mov	AGENT_CALL_RBX + 48(%rsp), %rcx
	mov	AGENT_CALL_RBX + 56(%rsp), %r8
	mov	AGENT_CALL_RBX + 64(%rsp), %r9
	call	*AGENT_CALL_TARGET(%rsp)
	.globl	agent_return_point
	.hidden	agent_return_point
agent_return_point:
	mov	%rax, AGENT_CALL_RBX + 16(%rsp)
	mov	%rdx, AGENT_CALL_SECOND(%rsp)
	mov	%rsp, %rdi
	call	agent_after
	test	%eax, %eax
	jnz	left
	mov	AGENT_CALL_RBX + 16(%rsp), %rax
	mov	AGENT_CALL_SECOND(%rsp), %rdx
	leave
	ret

/* As if we had never been here. */
left:
	mov	AGENT_CALL_RBX + 8(%rsp), %r11
	mov	AGENT_CALL_RBX + 16(%rsp), %rax
	mov	AGENT_CALL_RBX + 24(%rsp), %rdi
	mov	AGENT_CALL_RBX + 32(%rsp), %rsi
	mov	AGENT_CALL_RBX + 40(%rsp), %rdx
	mov	AGENT_CALL_RBX + 48(%rsp), %rcx
	mov	AGENT_CALL_RBX + 56(%rsp), %r8
	mov	AGENT_CALL_RBX + 64(%rsp), %r9
	leave
	jmp	*AGENT_SLOT_ORIGINAL(%r11)

	.section .note.GNU-stack, "", @progbits
