-- The transactions that wrote an object's rows of the catalogue: as long as they are the same, so is the object.
ALTER TABLE pgops.fingerprint ADD COLUMN mark text;
