# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Alert rules: what is shipped and declared, their evaluation, and what fires.

Two rules of the plan are not shipped, since nothing measures them yet: that an instance is down, which it cannot tell
of itself, and that recovery is unproven, which needs drills.
"""
