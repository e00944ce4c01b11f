// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/zip_archive.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/io/archive_builder.h"
#include "tests/io/load_all.h"

namespace flashvsr {
namespace {

std::string text_of(const ZipArchive& zip, const std::string& name) {
  const std::vector<char> data = zip.read(name);
  return std::string(data.begin(), data.end());
}

TEST(ZipArchive, Crc32PublishedVectorAndPieces) {
  EXPECT_EQ(crc32("123456789", 9), 0xCBF43926u);
  EXPECT_EQ(crc32("", 0), 0u);
  const std::string text = "the crc of pieces, one after another, is the crc of the whole";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_EQ(crc32(text.data() + cut, text.size() - cut, crc32(text.data(), cut)), crc32(text.data(), text.size())) << cut;
  }
}

TEST(ZipArchive, EveryStyleReads) {
  TemporaryFolder folder;
  for (const bool zip64 : {false, true}) {
    for (const bool deferred : {false, true}) {
      for (const size_t padding : {0u, 1u, 63u}) {
        for (const std::string& comment : {std::string(), std::string(70, 'c'), std::string("PK\5\6 inside a comment, not at its place")}) {
          ZipBuilder zip({zip64, deferred, padding});
          zip.add("a/one", "first").add("a/two", "").add("three", std::string(1000, 'x'));
          const ZipArchive archive(folder.write("a.zip", zip.finish(comment)));
          ASSERT_EQ(archive.members().size(), 3u);
          EXPECT_EQ(text_of(archive, "a/one"), "first");
          EXPECT_EQ(text_of(archive, "a/two"), "");
          EXPECT_EQ(text_of(archive, "three"), std::string(1000, 'x'));
          EXPECT_THROW(archive.read("four"), Error);
        }
      }
    }
  }
}

TEST(ZipArchive, CompressedMembersAreNamed) {
  TemporaryFolder folder;
  ZipBuilder zip;
  zip.add("a/data.pkl", "data");
  std::string bytes = zip.finish();
  patch(bytes, zip.central_at[0] + 10, 8, 2);
  try {
    ZipArchive archive(folder.write("a.zip", bytes));
    FAIL();
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("a/data.pkl"), std::string::npos) << what;
    EXPECT_NE(what.find("compressed"), std::string::npos) << what;
  }
}

TEST(ZipArchive, CrcIsChecked) {
  TemporaryFolder folder;
  ZipBuilder zip;
  zip.add("a", "some data");
  std::string bytes = zip.finish();
  bytes[zip.data_at[0] + 3] ^= 1;
  const ZipArchive archive(folder.write("a.zip", bytes));
  EXPECT_THROW(archive.read("a"), Error);
}

}  // namespace
}  // namespace flashvsr
