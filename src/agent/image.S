/* image.S - the linked agent, as data of memprobe. */
	.section .rodata
	.globl	agent_image, agent_image_end
	.balign	16
agent_image:
	.incbin	AGENT_IMAGE_FILE
agent_image_end:
	.section .note.GNU-stack, "", @progbits
