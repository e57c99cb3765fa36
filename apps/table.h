#pragma once

#include <string>
#include <vector>

namespace braid::apps {

// Rows of text under headings, columns as wide as their widest cell. A column whose cells are all
// numbers is set flush right.
class Table {
 public:
  explicit Table(std::vector<std::string> headings);

  // As many cells as there are headings.
  void add(std::vector<std::string> cells);

  // Ends with a line feed.
  std::string to_string() const;

 private:
  std::vector<std::vector<std::string>> rows_;  // the headings first
};

}  // namespace braid::apps
