# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Alert rules: what is shipped and declared, their evaluation, and what fires.

What an instance cannot tell of itself, as that it is down, is seen by the watch (watch.py), which has no session.
"""
