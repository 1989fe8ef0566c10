-- models/tickets.sql
SELECT * FROM (VALUES
  (1, 'widget', 'It broke on the first day, and nobody answers.'),
  (2, 'widget', 'Works as described. Thank you!'),
  (3, 'gadget', 'Where is my parcel?')
) AS tickets (id, product, body)
