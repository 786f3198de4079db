// RandomRun: a random sequence of all operations on a ModelRig, from one seed or one fuzzer's script.
// Invariant: it decides the configuration and every step; a run ends at the first difference.
#pragma once

#include "model_rig.h"

namespace enchilada::model {

/// The machine, swap, tunables and troubles that a seed stands for.
[[nodiscard]] RigConfig config_of(std::uint64_t seed);
/// The same, chosen by `random`.
[[nodiscard]] RigConfig choose_config(Random& random);
/// Modes that the environment asks for, so that a failing seed can be narrowed down: ENCHILADA_SET is a list
/// such as "map=avl,precopy=off". Stops the program when it names what does not exist.
void override_modes(VmModes* modes);
/// The modes that are not the default's, each ", name=mode".
[[nodiscard]] std::string describe(const VmModes& modes);
/// One line about it, for the report of a failure.
[[nodiscard]] std::string describe(const RigConfig& config);

class RandomRun {
 public:
  RandomRun(ModelRig& rig, Random random) : rig_(rig), random_(random) {}

  /// Up to so many steps; ends early where a script does.
  void run(unsigned steps);
  /// The same with operations on maps only.
  void run_on_maps(unsigned steps);

 private:
  void step();
  void operate_on_map();
  void operate_on_engine();
  void access();
  void sweep();
  void trouble();
  void swap_devices();
  void map();
  void advise();
  void remap();
  void wire();
  void fork_or_exit();
  void invalid();
  void drop_mappings();
  void resize();
  void pin();
  void quiet_disks();
  void operate_on_file();
  void map_file();

  [[nodiscard]] ModelRig::Process& some_process() {
    return rig_.process(random_.below(rig_.processes().size()));
  }
  [[nodiscard]] VirtRange some_range(const ModelMap& model, std::uint64_t longest);
  [[nodiscard]] VirtRange some_mapped_range(ModelMap& model, std::uint64_t longest);
  [[nodiscard]] VirtAddr some_page(ModelMap& model);
  [[nodiscard]] std::size_t wired_pages() const;

  ModelRig& rig_;
  Random random_;
  std::uint64_t next_value_ = 1;
  std::vector<FrameNumber> pinned_;
  std::array<bool, SwapGeometry::kMaxDevices> swapped_off_{};  // devices that are out
};

}  // namespace enchilada::model
