/* A program without dynamic linking and without libc. */
void _start(void) {
  __asm__ volatile("mov $60, %eax; xor %edi, %edi; syscall");
  for (;;) {
  }
}
