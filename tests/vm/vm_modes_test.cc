// The registry of mechanisms: names are unique, lead to modes and back, and presets choose modes that exist.
#include "vm/vm_modes.h"

#include <gtest/gtest.h>

#include <set>

namespace enchilada {
namespace {

TEST(VmModes, MechanismsAndTheirModesHaveNamesOfTheirOwn) {
  std::set<std::string_view> mechanisms;
  for (const Mechanism& m : kMechanisms) {
    EXPECT_TRUE(mechanisms.insert(m.name).second) << m.name;
    EXPECT_NE(m.name, "preset");
    EXPECT_FALSE(m.what.empty()) << m.name;
    std::set<std::string_view> modes(m.modes.begin(), m.modes.end());
    EXPECT_EQ(modes.size(), m.modes.size()) << m.name;
    EXPECT_GE(m.modes.size(), 2u) << m.name << ": a mechanism with one mode has no switch";
    for (const std::string_view mode : m.modes) {
      EXPECT_EQ(mode.find_first_of("|= "), std::string_view::npos) << mode;
      EXPECT_FALSE(mode.empty()) << m.name;
    }
    for (const std::uint8_t chosen : m.presets) EXPECT_LT(chosen, m.modes.size()) << m.name;
  }
}

TEST(VmModes, NamesLeadToModesAndBack) {
  for (std::size_t i = 0; i < kMechanisms.size(); ++i) {
    for (std::size_t m = 0; m < kMechanisms[i].modes.size(); ++m) {
      VmModes modes;
      ASSERT_EQ(modes.set_named(kMechanisms[i].name, kMechanisms[i].modes[m]), ModeVerdict::kOk);
      EXPECT_EQ(modes.number(i), m);
    }
  }
  VmModes modes;
  ASSERT_EQ(modes.set_named("swap_allocator", "list-3x"), ModeVerdict::kOk);
  EXPECT_EQ(modes.get<SwapAllocatorMode>(), SwapAllocatorMode::kList3x);
  EXPECT_EQ(name_of(modes.get<SwapAllocatorMode>()), "list-3x");
}

TEST(VmModes, WrongNamesChangeNothing) {
  VmModes modes;
  EXPECT_EQ(modes.set_named("swap_allocator", "buddy"), ModeVerdict::kNoMode);
  EXPECT_EQ(modes.set_named("swap_allocator", ""), ModeVerdict::kNoMode);
  EXPECT_EQ(modes.set_named("swap", "blist"), ModeVerdict::kNoMechanism);
  EXPECT_EQ(modes, VmModes());
}

TEST(VmModes, ALiveMachineKeepsTheDefaultsOfWhatItHasNot) {
  const VmModes article = VmModes(Preset::kArticle).on_live_machine();
  EXPECT_EQ(article.get<SwapAllocatorMode>(), SwapAllocatorMode::kBlist1999);
  EXPECT_EQ(article.get<FrameOrderMode>(), FrameOrderMode::kBuddy);
}

TEST(VmModes, ThePresetOfTheArticleHasTheArticlesForms) {
  EXPECT_EQ(VmModes(Preset::kArticle).get<SwapAllocatorMode>(), SwapAllocatorMode::kBlist1999);
  EXPECT_EQ(VmModes(Preset::kModern).get<SwapAllocatorMode>(), SwapAllocatorMode::kBlist);
  EXPECT_EQ(VmModes(Preset::kArticle).get<FrameOrderMode>(), FrameOrderMode::kColoured);
  EXPECT_EQ(VmModes(Preset::kModern).get<FrameOrderMode>(), FrameOrderMode::kReservation);
  EXPECT_EQ(VmModes(Preset::kHybrid), VmModes());
}

}  // namespace
}  // namespace enchilada
