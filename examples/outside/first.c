/* The same from C. */
#include <enchilada/enchilada_c.h>
#include <stdio.h>

int main(void) {
  enchilada_vm* vm = enchilada_vm_new(32 << 20, NULL, 0);
  if (vm == NULL) {
    fprintf(stderr, "%s\n", enchilada_last_error());
    return 1;
  }
  enchilada_region* region = enchilada_map(vm, 128 << 20, 0);
  char* bytes = enchilada_data(region);
  bytes[0] = 1;
  enchilada_snapshot* mark = enchilada_take_snapshot(region);
  bytes[0] = 2;
  enchilada_region* twin = enchilada_fork(region);
  bytes[0] = 3;
  if (enchilada_rollback(region, mark) != 0) return 1;
  printf("region %d, its fork %d\n", bytes[0], ((char*)enchilada_data(twin))[0]);
  const int right = bytes[0] == 1 && ((char*)enchilada_data(twin))[0] == 2;
  enchilada_region_free(twin);
  enchilada_snapshot_free(mark);
  enchilada_region_free(region);
  enchilada_vm_free(vm);
  return right ? 0 : 1;
}
