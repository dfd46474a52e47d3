# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The library of pgops.fleet: private to the collection, and on a host the package ``pgops`` of the agent."""
