#include "apps/table.h"

#include <algorithm>
#include <utility>

#include "apps/terminal.h"
#include "base/check.h"

namespace braid::apps {
namespace {

bool is_number(const std::string& cell) {
  return cell.empty() || cell == "-" || cell.find_first_not_of("0123456789.,+-%x ") == cell.npos;
}

}  // namespace

Table::Table(std::vector<std::string> headings) { rows_.push_back(std::move(headings)); }

void Table::add(std::vector<std::string> cells) {
  BRAID_CHECK_EQ(cells.size(), rows_[0].size());
  rows_.push_back(std::move(cells));
}

std::string Table::to_string() const {
  const size_t columns = rows_[0].size();
  std::vector<int> width(columns, 0);
  std::vector<bool> right(columns, true);
  for (size_t r = 0; r < rows_.size(); ++r) {
    for (size_t c = 0; c < columns; ++c) {
      width[c] = std::max(width[c], display_width(rows_[r][c]));
      if (r > 0 && !is_number(rows_[r][c])) right[c] = false;
    }
  }
  std::string out;
  for (size_t r = 0; r < rows_.size(); ++r) {
    std::string line;
    for (size_t c = 0; c < columns; ++c) {
      const std::string pad(static_cast<size_t>(width[c] - display_width(rows_[r][c])), ' ');
      if (c > 0) line += "  ";
      line += right[c] ? pad + rows_[r][c] : rows_[r][c] + pad;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
    if (r == 0) {
      int total = 0;
      for (size_t c = 0; c < columns; ++c) total += width[c] + (c > 0 ? 2 : 0);
      out += std::string(static_cast<size_t>(total), '-') + "\n";
    }
  }
  return out;
}

}  // namespace braid::apps
