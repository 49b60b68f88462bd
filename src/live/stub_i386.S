/*
 * stub_i386.S - the detour that a thread of the target takes, i386.
 *
 * As stub_x86_64.S, in the little room that 32-bit files leave behind their text; the way out
 * through sigreturn is missing. ebp is the frame, esi the step.
 */
#include "detour.h"

#define W(index) ((index) * 4)

	.section .rodata
	.globl	detour_i386_begin, detour_i386_literal, detour_i386_entry
	.globl	detour_i386_abort, detour_i386_copied, detour_i386_end
	.code32
	.balign	16
detour_i386_begin:
	.ascii	"memprobe detour1"
detour_i386_literal:
	.long	0

detour_i386_entry:
	jmp	1f
	lea	-4(%esp), %esp
	pushfl
	push	$W(DETOUR_PLAIN)
	jmp	2f
1:	lea	-4(%esp), %esp
	pushfl
	push	$W(DETOUR_RESTART)
2:	pushal
	mov	%esp, %ebx
	pushfl
	andl	$~0x40500, (%esp)
	popfl
	call	parameters
	/* Return addresses into the stub must not stay behind: they would pass for a thread in it. */
	movl	$0, -4(%esp)
	mov	32(%ebx), %eax
	mov	(%esi,%eax), %eax
	mov	%eax, 40(%ebx)

	mov	W(DETOUR_SIZE)(%esi), %ecx
	sub	%ecx, %esp
	and	$-64, %esp
	mov	%esp, %ebp
	mov	%esp, %edi
	rep movsb
detour_i386_copied:
	mov	%ebx, W(DETOUR_SAVED)(%ebp)

	sub	W(DETOUR_XSAVE_SIZE)(%ebp), %esp
	mov	%esp, W(DETOUR_XSAVE_AREA)(%ebp)
	lea	464(%esp), %edi
	xor	%eax, %eax
	mov	$((576 - 464) / 4), %ecx
	rep stosl
	call	features
	jz	1f
	xsave	(%esp)
	jmp	2f
1:	fxsave	(%esp)
2:	fninit
	sub	$64, %esp
	movl	$0x1f80, (%esp)
	ldmxcsr	(%esp)

	xor	%ebx, %ebx		/* SIG_BLOCK */
	lea	W(DETOUR_BLOCK)(%ebp), %ecx
	lea	W(DETOUR_OLD_MASK)(%ebp), %edx
	cmpl	$0, W(DETOUR_MASK_KNOWN)(%ebp)
	je	1f
	lea	W(DETOUR_PENDING)(%ebp), %edx
1:	call	set_mask

	/* From here on an abort finds a step to come from. */
	mov	%ebp, %esi
	add	W(DETOUR_STEPS)(%ebp), %esi
	mov	%esi, W(DETOUR_STEP)(%ebp)
	mov	W(DETOUR_ERRNO_FN)(%ebp), %eax
	test	%eax, %eax
	jz	1f
	call	*%eax
	movl	$0, -4(%esp)
	mov	%eax, W(DETOUR_ERRNO_PLACE)(%ebp)
	mov	(%eax), %eax
	mov	%eax, W(DETOUR_ERRNO)(%ebp)
1:
first:	mov	%ebp, %esi
	add	W(DETOUR_STEPS)(%ebp), %esi

next:	mov	%esi, W(DETOUR_STEP)(%ebp)
	mov	(%esi), %ebx
	test	%bl, %bl
	jz	finish
	mov	%ebx, %edx
	shr	$8, %edx
	add	$W(DETOUR_STEP_ARGS), %esi
	lea	W(DETOUR_ARGS)(%ebp), %edi
	mov	$6, %ecx
1:	lodsl
	test	$1, %dl
	jz	2f
	add	%ebp, %eax
	test	$2, %dl
	jz	2f
	mov	(%eax), %eax
2:	stosl
	shr	$2, %edx
	dec	%ecx
	jnz	1b
	mov	W(DETOUR_STEP)(%ebp), %esi
	cmp	$DETOUR_OP_FUNCTION, %bl
	je	function
	cmp	$DETOUR_OP_COPY, %bl
	je	copy
	cmp	$DETOUR_OP_STORE, %bl
	je	store

	push	%ebp
	push	%esi
	push	%ebx
	mov	4(%esi), %eax
	push	%ebx
	mov	W(DETOUR_ARGS + 0)(%ebp), %ebx
	mov	W(DETOUR_ARGS + 1)(%ebp), %ecx
	mov	W(DETOUR_ARGS + 2)(%ebp), %edx
	mov	W(DETOUR_ARGS + 3)(%ebp), %esi
	mov	W(DETOUR_ARGS + 4)(%ebp), %edi
	mov	W(DETOUR_ARGS + 5)(%ebp), %ebp
	cmpb	$DETOUR_OP_CLONE, (%esp)
	jb	system_call
	ja	leave
	int	$0x80			/* clone: the child has its stack, and its frame in ebp */
	test	%eax, %eax
	jz	first
	jmp	returned

leave:	mov	$91, %eax		/* munmap: the stack is gone from here on */
	int	$0x80
	mov	$1, %eax		/* exit */
	xor	%ebx, %ebx
	int	$0x80

copy:	push	%esi
	mov	W(DETOUR_ARGS + 0)(%ebp), %edi
	mov	W(DETOUR_ARGS + 2)(%ebp), %ecx
	mov	W(DETOUR_ARGS + 1)(%ebp), %esi
	rep movsb
	pop	%esi
	jmp	done

store:	mov	W(DETOUR_ARGS + 0)(%ebp), %edx
	mov	W(DETOUR_ARGS + 1)(%ebp), %eax
	mov	%eax, (%edx)
	jmp	done

function:
	sub	$32, %esp
	push	%esi
	lea	W(DETOUR_ARGS)(%ebp), %esi
	lea	4(%esp), %edi
	mov	$6, %ecx
	rep movsl
	pop	%esi
	call	*4(%esi)
	movl	$0, -4(%esp)
	add	$32, %esp
	jmp	done

system_call:
	int	$0x80
returned:
	pop	%ebx
	pop	%ebx
	pop	%esi
	pop	%ebp
done:	mov	W(DETOUR_STEP_RESULT)(%esi), %ecx
	jecxz	1f
	mov	%eax, (%ebp,%ecx)
1:	shr	$24, %ebx
	jz	2f
	cmp	$DETOUR_EXPECT, %bl
	je	1f
	cmp	$-4095, %eax
	jae	failed
	jmp	2f
1:	cmp	W(DETOUR_STEP_EXPECT)(%esi), %eax
	jne	failed
2:	add	$W(DETOUR_STEP_WORDS), %esi
	jmp	next

detour_i386_abort:
	nop
	nop
	cld
	call	parameters
	mov	W(DETOUR_ABORT_FRAME)(%esi), %ebp
	mov	W(DETOUR_XSAVE_AREA)(%ebp), %esp
	sub	$64, %esp
	mov	W(DETOUR_STEP)(%ebp), %esi
failed:	mov	W(DETOUR_STEP_FAIL)(%esi), %esi
	add	%ebp, %esi
	jmp	next

finish:	mov	W(DETOUR_ERRNO_PLACE)(%ebp), %ecx
	jecxz	1f
	mov	W(DETOUR_ERRNO)(%ebp), %eax
	mov	%eax, (%ecx)
1:	mov	W(DETOUR_XSAVE_AREA)(%ebp), %edi
	call	features
	jz	1f
	xrstor	(%edi)
	jmp	2f
1:	fxrstor	(%edi)
2:	mov	$2, %ebx		/* SIG_SETMASK */
	lea	W(DETOUR_OLD_MASK)(%ebp), %ecx
	xor	%edx, %edx
	call	set_mask
	mov	W(DETOUR_SAVED)(%ebp), %esp
	popal
	lea	4(%esp), %esp
	popfl
	ret

	/* esi: the parameter block. */
parameters:
	call	1f
1:	pop	%esi
	mov	(detour_i386_literal - 1b)(%esi), %esi
	ret

	/* edx:eax: what to save; zero flag: there is no XSAVE. */
features:
	mov	W(DETOUR_XSAVE_LOW)(%ebp), %eax
	mov	W(DETOUR_XSAVE_HIGH)(%ebp), %edx
	mov	%eax, %ecx
	or	%edx, %ecx
	ret

	/* rt_sigprocmask(ebx, ecx, edx, 8) */
set_mask:
	mov	$175, %eax
	mov	$8, %esi
	int	$0x80
	ret
detour_i386_end:

	.section .note.GNU-stack, "", @progbits
