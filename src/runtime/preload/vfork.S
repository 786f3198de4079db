/* vfork by symbol: the helper thread must exist before a child that will exec needs frames of ours.
 *
 * vfork returns twice on the same stack, so it cannot be a C function: the return address is kept in a register
 * across the system call, as libc does.
 */
        .section .note.GNU-stack,"",@progbits
        .text
        .globl vfork
        .type vfork, @function
vfork:
        sub     $8, %rsp
        call    enchilada_before_vfork
        add     $8, %rsp
        pop     %rdi
        mov     $58, %eax
        syscall
        push    %rdi
        cmp     $-4095, %rax
        jae     1f
        ret
1:      mov     %rax, %rdi
        jmp     enchilada_vfork_failed
        .size vfork, .-vfork
        .globl __vfork
        .set __vfork, vfork
