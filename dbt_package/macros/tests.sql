{#
  Fails if the share of rows that are not ok is above max_share, and then returns these rows. Pending rows are not ok;
  pending='ignore' leaves them out of the count, for a project whose batches run on after a build.
#}
{% test mistral_answered(model, column_name='outcome', max_share=0, pending='fail') %}
WITH counted AS (
  SELECT * FROM {{ model }}
  {% if pending == 'ignore' %}WHERE {{ column_name }} IS DISTINCT FROM 'pending'{% endif %}
)
SELECT * FROM counted
WHERE {{ column_name }} IS DISTINCT FROM 'ok' AND (
  SELECT count(*) FILTER ({{ column_name }} IS DISTINCT FROM 'ok') > {{ max_share }} * count(*) FROM counted
)
{% endtest %}


{#
  Fails if the newest answer is older than this many hours, or if no row has one. The model has the time of its answers
  as a column if its config has results=['answered_at'].
#}
{% test mistral_fresh(model, hours, column_name='answered_at') %}
SELECT max({{ column_name }}) AS newest
FROM {{ model }}
HAVING count(*) > 0 AND coalesce(max({{ column_name }}) < now() - to_hours({{ hours }}), true)
{% endtest %}
