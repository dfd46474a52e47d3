-- Stands in for the migration that main numbers 3, and is dropped when this branch is merged.
SELECT 1;
