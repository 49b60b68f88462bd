/*
 * stub_x86_64.S - the detour that a thread of the target takes, x86-64.
 *
 * It is data to memprobe and is copied into the target. The thread gets here by nothing but a new
 * program counter; so all its registers are still its own and are saved first. The saved registers
 * are laid out as the kernel's struct ucontext, so that the way out can also be rt_sigreturn.
 *
 * The kernel restarts an interrupted system call by taking 2 off the program counter and putting
 * the call's number into rax, whatever the program counter is by then: memprobe sets entry + 2, and
 * whether the thread comes in there or at entry + 0 tells where it has to go on.
 */
#include "detour.h"

#define W(index) ((index) * 8)

/* struct sigcontext, from the address of its r8. */
#define SC_SP	   120
#define SC_IP	   128
#define SC_SEGMENTS 144 /* on the normal way out: the return address */
#define SC_FPSTATE 184
#define UC_SIGMASK 256
#define UC_BELOW   40 /* uc_flags, uc_link, uc_stack stand below r8 */

/* Red zone, and the part of the ucontext above the flags. */
#define GAP (128 + 120)

	.section .rodata
	.globl	detour_x86_64_begin, detour_x86_64_literal, detour_x86_64_entry
	.globl	detour_x86_64_abort, detour_x86_64_copied, detour_x86_64_end
	.balign	16
detour_x86_64_begin:
	.ascii	"memprobe detour1"
detour_x86_64_literal:
	.quad	0

detour_x86_64_entry:
	jmp	1f
	lea	-GAP(%rsp), %rsp
	pushfq
	push	$W(DETOUR_PLAIN)
	jmp	2f
1:	lea	-GAP(%rsp), %rsp
	pushfq
	push	$W(DETOUR_RESTART)
2:	push	%rsp
	push	%rcx
	push	%rax
	push	%rdx
	push	%rbx
	push	%rbp
	push	%rsi
	push	%rdi
	push	%r15
	push	%r14
	push	%r13
	push	%r12
	push	%r11
	push	%r10
	push	%r9
	push	%r8
	mov	%rsp, %rbp

	/* The direction flag, alignment checks and tracing are the program's own business. */
	pushfq
	andq	$~0x40500, (%rsp)
	popfq

	mov	detour_x86_64_literal(%rip), %rsi
	mov	SC_IP(%rbp), %rax
	mov	(%rsi,%rax), %rax
	mov	%rax, SC_IP(%rbp)
	mov	%rax, SC_SEGMENTS(%rbp)
	addq	$(GAP + 16), SC_SP(%rbp)

	/* The frame: a copy of the parameter block. rbx stays its address. */
	mov	W(DETOUR_SIZE)(%rsi), %rcx
	lea	-UC_BELOW(%rsp), %rbx
	sub	%rcx, %rbx
	and	$-64, %rbx
	mov	%rbx, %rsp
	mov	%rbx, %rdi
	rep movsb
detour_x86_64_copied:
	mov	%rbp, W(DETOUR_SAVED)(%rbx)

	/* Floating point and vector state. What XSAVE leaves alone of its header must be zero. */
	sub	W(DETOUR_XSAVE_SIZE)(%rbx), %rsp
	mov	%rsp, W(DETOUR_XSAVE_AREA)(%rbx)
	lea	464(%rsp), %rdi
	xor	%eax, %eax
	mov	$((576 - 464) / 8), %ecx
	rep stosq
	mov	W(DETOUR_XSAVE_LOW)(%rbx), %eax
	mov	W(DETOUR_XSAVE_HIGH)(%rbx), %edx
	mov	%eax, %ecx
	or	%edx, %ecx
	jz	1f
	xsave64	(%rsp)
	jmp	2f
1:	fxsave64 (%rsp)
2:	fninit
	sub	$64, %rsp
	movl	$0x1f80, (%rsp)
	ldmxcsr	(%rsp)

	xor	%edi, %edi		/* rt_sigprocmask(SIG_BLOCK ...) */
	lea	W(DETOUR_BLOCK)(%rbx), %rsi
	lea	W(DETOUR_OLD_MASK)(%rbx), %rdx
	lea	W(DETOUR_PENDING)(%rbx), %rax
	cmpl	$0, W(DETOUR_MASK_KNOWN)(%rbx)
	cmovne	%rax, %rdx
	mov	$14, %eax
	mov	$8, %r10d
	syscall

	/* From here on an abort finds a step to come from. */
	mov	%rbx, %r15
	add	W(DETOUR_STEPS)(%rbx), %r15
	mov	%r15, W(DETOUR_STEP)(%rbx)
	mov	W(DETOUR_ERRNO_FN)(%rbx), %rax
	test	%rax, %rax
	jz	1f
	call	*%rax
	/* Return addresses into the stub must not stay behind: they would pass for a thread in it. */
	movq	$0, -8(%rsp)
	mov	%rax, W(DETOUR_ERRNO_PLACE)(%rbx)
	mov	(%rax), %eax
	mov	%rax, W(DETOUR_ERRNO)(%rbx)
1:
	/* One step: r15. */
next:	mov	%r15, W(DETOUR_STEP)(%rbx)
	mov	(%r15), %r14d
	test	%r14b, %r14b
	jz	finish
	mov	%r14d, %edx
	shr	$8, %edx
	lea	W(DETOUR_STEP_ARGS)(%r15), %rsi
	lea	W(DETOUR_ARGS)(%rbx), %rdi
	mov	$6, %ecx
1:	lodsq
	test	$1, %dl
	jz	2f
	add	%rbx, %rax
	test	$2, %dl
	jz	2f
	mov	(%rax), %rax
2:	stosq
	shr	$2, %edx
	dec	%ecx
	jnz	1b
	mov	W(DETOUR_ARGS + 0)(%rbx), %rdi
	mov	W(DETOUR_ARGS + 1)(%rbx), %rsi
	mov	W(DETOUR_ARGS + 2)(%rbx), %rdx
	mov	W(DETOUR_ARGS + 3)(%rbx), %r10
	mov	W(DETOUR_ARGS + 4)(%rbx), %r8
	mov	W(DETOUR_ARGS + 5)(%rbx), %r9
	mov	8(%r15), %rax
	cmp	$DETOUR_OP_SYSCALL, %r14b
	jb	function
	je	system_call
	cmp	$DETOUR_OP_STORE, %r14b
	jb	copy
	je	store
	cmp	$DETOUR_OP_CLONE, %r14b
	ja	leave

	syscall				/* clone: the child has its stack, and its frame in r9 */
	test	%rax, %rax
	jnz	done
	mov	%r9, %rbx
	mov	%rbx, %r15
	add	W(DETOUR_STEPS)(%rbx), %r15
	jmp	next

leave:	mov	$11, %eax		/* munmap: the stack is gone from here on */
	syscall
	mov	$60, %eax		/* exit */
	xor	%edi, %edi
	syscall

copy:	mov	%rdx, %rcx
	rep movsb
	jmp	done

store:	mov	%rsi, (%rdi)
	jmp	done

function:
	mov	%r10, %rcx
	mov	%rax, %r11
	xor	%eax, %eax
	call	*%r11
	movq	$0, -8(%rsp)
	jmp	done

system_call:
	syscall
done:	mov	W(DETOUR_STEP_RESULT)(%r15), %rcx
	test	%rcx, %rcx
	jz	1f
	mov	%rax, (%rbx,%rcx)
1:	shr	$24, %r14d
	jz	2f
	cmp	$DETOUR_EXPECT, %r14d
	je	1f
	cmp	$-4095, %rax
	jae	failed
	jmp	2f
1:	cmp	W(DETOUR_STEP_EXPECT)(%r15), %rax
	jne	failed
2:	add	$W(DETOUR_STEP_WORDS), %r15
	jmp	next

	/* Either entry is right: what was interrupted here is not to be restarted. */
detour_x86_64_abort:
	nop
	nop
	mov	detour_x86_64_literal(%rip), %rsi
	mov	W(DETOUR_ABORT_FRAME)(%rsi), %rbx
	mov	W(DETOUR_XSAVE_AREA)(%rbx), %rsp
	sub	$64, %rsp
	cld
	mov	W(DETOUR_STEP)(%rbx), %r15
failed:	mov	W(DETOUR_STEP_FAIL)(%r15), %r15
	add	%rbx, %r15
	jmp	next

finish:	mov	W(DETOUR_ERRNO_PLACE)(%rbx), %rcx
	test	%rcx, %rcx
	jz	1f
	mov	W(DETOUR_ERRNO)(%rbx), %rax
	mov	%eax, (%rcx)
1:	mov	W(DETOUR_SAVED)(%rbx), %rbp
	mov	W(DETOUR_XSAVE_AREA)(%rbx), %r12

	/*
	 * glibc cancels a thread by signal 32, musl by 33, and the handler unwinds the stack from
	 * where the signal hits, or goes by that place: it must not be in here. If one waits for the mask to open, the mask and the program
	 * counter have to change together, as rt_sigreturn does it. It is not the general way out
	 * because it forgets how to restart nanosleep or poll.
	 */
	mov	$127, %eax		/* rt_sigpending */
	lea	W(DETOUR_PENDING)(%rbx), %rdi
	mov	$8, %esi
	syscall
	mov	W(DETOUR_OLD_MASK)(%rbx), %rax
	not	%rax
	and	W(DETOUR_PENDING)(%rbx), %rax
	shr	$31, %rax
	test	$3, %al
	jnz	cancelled

	mov	W(DETOUR_XSAVE_LOW)(%rbx), %eax
	mov	W(DETOUR_XSAVE_HIGH)(%rbx), %edx
	mov	%eax, %ecx
	or	%edx, %ecx
	jz	1f
	xrstor64 (%r12)
	jmp	2f
1:	fxrstor64 (%r12)
2:	mov	$14, %eax		/* rt_sigprocmask */
	mov	$2, %edi		/* SIG_SETMASK */
	lea	W(DETOUR_OLD_MASK)(%rbx), %rsi
	xor	%edx, %edx
	mov	$8, %r10d
	syscall
	mov	%rbp, %rsp
	pop	%r8
	pop	%r9
	pop	%r10
	pop	%r11
	pop	%r12
	pop	%r13
	pop	%r14
	pop	%r15
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rax
	pop	%rcx
	lea	16(%rsp), %rsp
	popfq
	ret	$(GAP - 8)

cancelled:
	movq	$7, -UC_BELOW(%rbp)	/* UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS */
	xor	%eax, %eax
	mov	%rax, -32(%rbp)
	mov	%rax, -24(%rbp)
	movq	$0x7f, -16(%rbp)	/* no valid ss_flags: the alternate stack stays as it is */
	mov	%rax, -8(%rbp)
	movabs	$0x002b000000000033, %rax
	mov	%rax, SC_SEGMENTS(%rbp)
	mov	%r12, SC_FPSTATE(%rbp)
	mov	W(DETOUR_OLD_MASK)(%rbx), %rax
	mov	%rax, UC_SIGMASK(%rbp)
	mov	W(DETOUR_XSAVE_LOW)(%rbx), %eax
	mov	W(DETOUR_XSAVE_HIGH)(%rbx), %edx
	mov	%eax, %ecx
	or	%edx, %ecx
	jz	1f
	mov	W(DETOUR_XSAVE_USED)(%rbx), %rcx
	movl	$0x46505853, 464(%r12)	/* struct _fpx_sw_bytes */
	mov	%eax, 472(%r12)
	mov	%edx, 476(%r12)
	mov	%ecx, 480(%r12)
	movl	$0x46505845, (%r12,%rcx)
	add	$4, %ecx
	mov	%ecx, 468(%r12)
1:	lea	-UC_BELOW(%rbp), %rsp
	mov	$15, %eax		/* rt_sigreturn */
	syscall
detour_x86_64_end:

	.section .note.GNU-stack, "", @progbits
